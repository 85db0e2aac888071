"""Efforts by names that a chat template does not know: the budget holds, the template gets a name
that it knows or none."""

from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.parser.harmony_utils import REASONING_EFFORT

from service.apis import BATCH, CHAT, INVOCATIONS, MESSAGES, RESPONSES
from service.controls import EFFORT, Template, carry, effective_settings, read_body
from service.controls.effort import EFFORTS
from service.model import HARMONY_EFFORTS, model_of
from stepgrpo_core import ExitSettings
from stepgrpo_core.thinking import efforts_of, switches_of

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
AS_WRITTEN = USER + "Reasoning: {{ reasoning_effort }}"
QWEN_3_8 = (files("trl") / "chat_templates" / "qwen3_8.jinja").read_text()


def unknown(template: str) -> dict[str, str | None]:
    return efforts_of(TOKENIZER, NAMES, template, switches_of(TOKENIZER, template))


def test_what_a_template_refuses_becomes_the_nearest_that_it_knows() -> None:
    assert unknown(RAISES) == {"minimal": "low", "medium": "high", "xhigh": "high", "max": "high"}
    assert unknown(QWEN_3_8) == {"minimal": "low", "high": "xhigh", "max": "xhigh"}


def test_what_a_template_takes_for_nothing_is_left_out() -> None:
    assert unknown(ONLY_WHEN_ON) == dict.fromkeys(NAMES[:-1])


@pytest.mark.parametrize("template", [USER, AS_WRITTEN])
def test_a_template_without_efforts_or_with_any_gets_them_as_they_are(template: str) -> None:
    assert unknown(template) == {}


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
    told, asked = carry(body, read_body(body), endpoint, template)
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
    told, _ = carry(body, read_body(body), CHAT, template)
    request = ChatCompletionRequest.model_validate(told or body)
    variables = request.build_chat_params(None, "auto").chat_template_kwargs
    variables.pop("tools", None)
    text = TOKENIZER.apply_chat_template(
        body["messages"], chat_template=QWEN_3_8, tokenize=False, **variables
    )
    assert ("<think>\n\n</think>" in text) == (effort == "none")


def test_a_template_that_knows_all_is_told_what_was_asked() -> None:
    body = {"reasoning_effort": "high"}
    assert carry(body, read_body(body), CHAT, Template())[0] is None
