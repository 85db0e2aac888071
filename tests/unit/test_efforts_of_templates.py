"""Efforts by names that a chat template does not know: the budget holds, the template gets a name
that it knows or none."""

from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.parser.harmony_utils import REASONING_EFFORT

from service.params import EFFORT, Template, effective_settings, read_body, to_vllm_body
from service.params.apis import BATCH, CHAT, INVOCATIONS, MESSAGES, RESPONSES
from service.params.effort import EFFORTS
from service.params.model import HARMONY_EFFORTS, model_of
from stepgrpo_core import ExitSettings

TOKENIZER = AutoTokenizer.from_pretrained(Path(__file__).parents[2] / "models" / "demo-base")
NAMES = EFFORTS[1:]
USER = "{% for m in messages %}{{ m.content }}{% endfor %}"
RAISES = (
    "{%- set effort = reasoning_effort if reasoning_effort is defined else 'no_think' %}"
    "{%- if effort not in ('no_think', 'low', 'high') %}"
    "{{ raise_exception('unknown effort') }}{% endif %}" + USER + "{{ effort }}"
)
ONLY_WHEN_ON = (
    USER + "{% if thinking is defined and thinking and reasoning_effort is defined "
    "and reasoning_effort == 'max' %}Think hard.{% endif %}"
    "{% if thinking is defined and thinking %}<think>{% endif %}"
)
REFUSES_WHEN_ON = (
    "{% if thinking is defined and thinking %}{%- if reasoning_effort is defined and "
    "reasoning_effort not in ('low', 'high') %}{{ raise_exception('unknown effort') }}{% endif %}"
    "{{ reasoning_effort }}<think>{% endif %}" + USER
)
AS_WRITTEN = USER + "Reasoning: {{ reasoning_effort }}"
QWEN_3_8 = (files("trl") / "chat_templates" / "qwen3_8.jinja").read_text()


def exchanged(template: str) -> dict[str, str]:
    """Efforts that the template is told by another name."""
    made = model_of(TOKENIZER, ExitSettings(), families={}, chat_template=template).template
    found = {}
    for name in NAMES:
        body = {"reasoning_effort": name}
        told, _ = to_vllm_body(body, read_body(body), CHAT, made)
        if told is not None:
            assert "reasoning_effort" not in told  # there it would go before the variables
            found[name] = told["chat_template_kwargs"]["reasoning_effort"]
    return found


def test_what_a_template_refuses_becomes_the_nearest_that_it_knows() -> None:
    found = {"minimal": "low", "medium": "high", "xhigh": "high", "max": "high"}
    assert exchanged(RAISES) == exchanged(REFUSES_WHEN_ON) == found
    assert exchanged(QWEN_3_8) == {"minimal": "low", "high": "xhigh", "max": "xhigh"}


@pytest.mark.parametrize("template", [USER, AS_WRITTEN, ONLY_WHEN_ON])
def test_a_template_that_refuses_none_gets_them_as_they_are(template: str) -> None:
    assert exchanged(template) == {}


def test_what_vllm_writes_without_the_template_goes_where_its_schema_has_it() -> None:
    template = Template(efforts={"reasoning_effort": HARMONY_EFFORTS}, rendered=False)
    body = {"chat_template_kwargs": {"reasoning_effort": "max"}}
    told, _ = to_vllm_body(body, read_body(body), CHAT, template)
    assert told == {"chat_template_kwargs": {}, "reasoning_effort": "high"}


def test_harmony_knows_what_vllm_writes_for_it() -> None:
    assert tuple(sorted(REASONING_EFFORT)) == tuple(sorted(HARMONY_EFFORTS))


PLACES = ["reasoning_effort", "reasoning.effort", "output_config.effort"]
PLACES += ["chat_template_kwargs.reasoning_effort"]


def body_of(path: str, value: Any) -> dict[str, Any]:
    place, _, leaf = path.rpartition(".")
    return {place: {leaf: value}} if place else {leaf: value}


@pytest.mark.parametrize("effort", EFFORTS)
@pytest.mark.parametrize("path", PLACES)
@pytest.mark.parametrize("endpoint", [CHAT, BATCH, RESPONSES, MESSAGES, INVOCATIONS])
def test_the_budget_holds_and_the_template_gets_a_name_that_it_knows(
    endpoint: str, path: str, effort: str
) -> None:
    template = model_of(TOKENIZER, ExitSettings(), families={}, chat_template=QWEN_3_8).template
    body = body_of(path, effort)
    told, asked = to_vllm_body(body, read_body(body), endpoint, template)
    given = body if told is None else told
    found = {
        value
        for each in PLACES
        if (
            value := ((given.get(each.rpartition(".")[0]) or {}) if "." in each else given).get(
                each.rpartition(".")[2]
            )
        )
    }
    known = {"low", "medium", "xhigh"}
    assert found <= known
    assert bool(found) == (effort != "none")
    settings = effective_settings(None, ExitSettings(), asked, limit=10_000).settings
    worth = EFFORT[effort]
    assert settings.budget_tokens == (None if worth is None else min(int(worth * 10_000), 9_032))


@pytest.mark.parametrize("effort", EFFORTS)
def test_no_effort_makes_the_template_refuse(effort: str) -> None:
    template = model_of(TOKENIZER, ExitSettings(), families={}, chat_template=QWEN_3_8).template
    body: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}]}
    body["reasoning_effort"] = effort
    told, _ = to_vllm_body(body, read_body(body), CHAT, template)
    request = ChatCompletionRequest.model_validate(told or body)
    variables = request.build_chat_params(None, "auto").chat_template_kwargs
    variables.pop("tools", None)
    text = TOKENIZER.apply_chat_template(
        body["messages"], chat_template=QWEN_3_8, tokenize=False, **variables
    )
    assert ("<think>\n\n</think>" in text) == (effort == "none")


def test_a_template_that_knows_all_is_told_what_was_asked() -> None:
    body = {"reasoning_effort": "high"}
    assert to_vllm_body(body, read_body(body), CHAT, Template())[0] is None
