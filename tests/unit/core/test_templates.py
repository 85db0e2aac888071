"""Facts that a model's own chat template tells, on templates of each kind written here."""

import logging
from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import AddedToken

from service.params import BadParameter, Template, read_body, to_vllm_body
from service.params.model import Model, model_of
from service.params.reasoning_parser import Parser
from stepgrpo_core import ExitSettings, InvalidSetting
from stepgrpo_core.families.table import FAMILIES, Family, read_families
from stepgrpo_core.families.templates import (
    Switch,
    closed_by,
    closing_of,
    prompt_end,
    render_of,
    source_of,
    tool_starts_of,
)
from stepgrpo_core.families.thinking import (
    adapt_family,
    continues_thinking,
    family_of,
    special_ids,
    switches_of,
    thinking_of,
    tokenizer_format,
)
from tests.support.core.families import CHATML, THINK, tokenizer_of

CHAT = "/v1/chat/completions"
TURNS = """{%- for message in messages %}<|im_start|>{{ message.role }}
{% if message.role == 'assistant' %}ASSISTANT{% endif %}{{ message.content }}
{%- for call in message.tool_calls or [] %}CALL{{ call.function.name }}{% endfor %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
PROMPT{% endif %}"""


def template(assistant: str = "", call: str = "", prompt: str = "") -> str:
    return TURNS.replace("ASSISTANT", assistant).replace("CALL", call).replace("PROMPT", prompt)


def tokenizer(text: str | None, *added: str, special: tuple[str, ...] = CHATML) -> Any:
    return tokenizer_of(special, (*THINK, *added), text)


THINKS = (
    "{% if message.reasoning_content %}<think>{{ message.reasoning_content }}</think>{% endif %}"
)


@pytest.mark.parametrize(
    ("assistant", "closing"),
    [
        (THINKS, "</think>"),
        (THINKS.replace("}}</", "}}\n</").replace("k>{% e", "k>\n\n{% e"), "\n</think>\n\n"),
        (THINKS.replace("reasoning_content", "thinking"), "</think>"),
        (THINKS.replace("reasoning_content", "reasoning"), "</think>"),
        (THINKS.replace("k>{% e", "k><answer>{% e"), "</think><answer>"),
        ("<think></think>", "</think>"),  # history without its reasoning
        ("</think>\n", "</think>\n"),
        ("<think>\n\n</think>\n\n", None),  # of an empty thought's white space nothing follows
        ("", None),
    ],
)
def test_the_closing_text_is_what_stands_between_reasoning_and_answer(
    assistant: str, closing: str | None
) -> None:
    made = tokenizer(template(assistant), "<answer>")
    render = render_of(made)
    assert render is not None
    assert closing_of(render, *THINK) == closing
    row = FAMILIES["think"]
    assert adapt_family(made, row).closing == (closing or row.closing)
    assert adapt_family(tokenizer(None), row) == row


def test_a_template_whose_reasoning_comes_as_chunks_shows_its_closing() -> None:
    chunks = """{%- for message in messages %}[{{ message.role }}]
    {%- if message.content is string %}{{ message.content }}{% else %}
    {%- for part in message.content %}
    {%- if part.type == 'thinking' %}<think>{{ part.thinking }}</think>{% else %}{{ part.text }}
    {%- endif %}{% endfor %}{% endif %}{% endfor %}"""
    assert adapt_family(tokenizer(chunks), FAMILIES["think"]).closing == "</think>"


def test_a_template_that_raises_or_hides_the_answer_tells_nothing() -> None:
    for text in ("{{ raise_exception('no') }}", "{{ messages[0].content }}", "{{ 1 / 0 }}"):
        found = adapt_family(tokenizer(text), FAMILIES["glm"])
        assert found == FAMILIES["glm"]


def test_a_closing_text_that_the_operator_gives_goes_before_the_templates() -> None:
    own = read_families({"mine": {"closing": "\n</think>\n"}, "other": {}})
    made = tokenizer(template(THINKS))
    assert adapt_family(made, own["mine"]).closing == "\n</think>\n"
    assert adapt_family(made, own["other"]).closing == "</think>"


def test_a_closing_text_that_the_tokenizer_cannot_write_is_left_to_the_row() -> None:
    made = tokenizer(template(THINKS.replace("k>{% e", "k><sep> {% e")))
    made.add_tokens([AddedToken("<sep>", rstrip=True)])  # takes the space behind it along
    assert adapt_family(made, FAMILIES["think"]).closing == FAMILIES["think"].closing


def test_of_several_templates_the_default_one_tells() -> None:
    several = SimpleNamespace(chat_template={"default": "one", "tool_use": "two"})
    assert source_of(several) == "one"
    assert source_of(several, "three") == "three"
    assert source_of(SimpleNamespace(chat_template={"tool_use": "two"})) == "two"
    assert source_of(SimpleNamespace()) is None


# Tool calls.


@pytest.mark.parametrize(
    ("call", "added", "found"),
    [
        ("\n<tool_call>\nname=", ("<tool_call>",), "<tool_call>"),
        ("<|call_start|>[", ("<|call_start|>",), "<|call_start|>"),
        ("\n\n<｜DSML｜invoke name=", ("｜DSML｜",), "｜DSML｜"),
        ("</think><act>", ("<act>",), "<act>"),  # the end of thinking is no start of a call
        ("<|open|>tools<|sep|>", ("<|open|>", "<|sep|>"), "<|open|>tools<|sep|>"),
    ],
)
def test_what_opens_a_tool_call_is_read_from_the_template_and_ends_the_thinking(
    call: str, added: tuple[str, ...], found: str
) -> None:
    before = "<|open|>response<|sep|>" if "<|open|>" in added else ""
    made = tokenizer(template(before, call), *added)
    render = render_of(made)
    assert render is not None
    marks = FAMILIES["think"].start, FAMILIES["think"].end
    assert tool_starts_of(render, [*CHATML, *THINK, *added], marks) == (found,)
    family = adapt_family(made, FAMILIES["think"])
    thinking = thinking_of(made, family, family.closing)
    ids = tuple(made.encode(found, add_special_tokens=False))
    assert ids in {(each,) for each in thinking.tool_ids} | set(thinking.tool_starts)


def test_a_template_without_calls_tells_no_tool_start() -> None:
    render = render_of(tokenizer("{{ messages[0].content }}"))
    assert render is not None
    assert tool_starts_of(render, ["<tool_call>"]) == ()


def test_the_yaml_can_add_tool_starts() -> None:
    own = read_families({"mine": {"tools": ["<do>", "<|a|>go<|b|>"]}})["mine"]
    made = tokenizer(None, "<do>", "<|a|>", "<|b|>")
    thinking = thinking_of(made, own, own.closing)
    assert thinking.tool_ids == {made.convert_tokens_to_ids("<do>")}
    assert thinking.tool_starts == (tuple(made.encode("<|a|>go<|b|>")),)


# Switches and efforts.

OPENS = "{% if COND %}<think>\n\n</think>\n\n{% else %}<think>\n{% endif %}"


def model(text: str | None, *added: str, **options: Any) -> Model:
    return model_of(tokenizer(text, *added), ExitSettings(), families={}, **options)


@pytest.mark.parametrize(
    ("condition", "switch"),
    [
        ("budget_of_thought == 0", Switch("budget_of_thought", 0, None)),
        ("mode is defined and mode == 'disabled'", Switch("mode", "disabled", None)),
        ("reason is defined and not reason", Switch("reason", False, None)),
        ("effort_level in ['low', 'minimal']", Switch("effort_level", "minimal", None)),
        ("mode is undefined or mode != 'enabled'", Switch("mode", False, "enabled")),
    ],
)
def test_switches_of_any_name_are_found_by_rendering_both_ways(
    condition: str, switch: Switch
) -> None:
    found = model(template(prompt=OPENS.replace("COND", condition))).template
    assert (found.switches, found.others) == ((), (switch,))
    told, asked = to_vllm_body({}, read_body({"reasoning_effort": "none"}), CHAT, found)
    assert told is not None
    assert told["chat_template_kwargs"][switch.name] == switch.off
    assert asked.already_off
    body = {"enable_thinking": True}
    told, _ = to_vllm_body(body, read_body(body), CHAT, found)
    on = (told or {}).get("chat_template_kwargs", {}).get(switch.name)
    assert on == switch.on


def test_a_word_in_the_system_message_that_switches_off_is_named_in_the_refusal() -> None:
    text = "{% if '/no_think' in messages[0].content %}<think></think>{% else %}<think>{% endif %}"
    found = model(template(prompt=text)).template
    assert (found.switches, found.others, found.word) == ((), (), "/no_think")
    with pytest.raises(BadParameter, match=r"'/no_think' in a system message does; a budget of 0"):
        to_vllm_body({}, read_body({"enable_thinking": False}), CHAT, found)
    assert model(template(prompt="<think>")).template.word is None
    assert model(template(prompt="<think></think>")).template.word is None


def test_a_variable_that_changes_nothing_tells_nothing() -> None:
    idle = "{% set thinking = thinking %}{% set reasoning_effort = reasoning_effort %}"
    found = model(idle + template(prompt="<think>")).template
    assert (found.switches, found.efforts) == ((), {})


def test_a_variable_that_only_changes_words_is_no_switch() -> None:
    text = template(prompt="{% if style == 'off' %}be brief{% endif %}<think>\n")
    assert model(text).template.others == ()
    assert switches_of(tokenizer(text)) == ()


def test_a_prompt_is_closed_by_its_end_an_empty_thought_or_what_opens_an_answer() -> None:
    solar = FAMILIES["solar"]
    assert closed_by(solar, "<|end|><|begin|>assistant<|think|><|end|><|begin|>assistant")
    assert not closed_by(solar, "<|end|><|begin|>assistant")
    k3 = FAMILIES["kimi-k3"]
    assert closed_by(k3, "<|open|>response<|sep|>")
    assert not closed_by(k3, "<|open|>think<|sep|>")
    assert not closed_by(k3, None)


TAKES = """{%- if reasoning_effort is defined and reasoning_effort not in ['low', 'xhigh'] %}
{{- raise_exception('no') }}{% endif %}"""


@pytest.mark.parametrize(
    ("text", "asked", "told"),
    [
        (TAKES, "high", {"reasoning_effort": "xhigh"}),
        (TAKES, "minimal", {"reasoning_effort": "low"}),
        (TAKES.replace("reasoning_effort", "thinking_effort"), "max", {"thinking_effort": "xhigh"}),
    ],
)
def test_an_effort_goes_to_the_template_in_its_own_words(text: str, asked: str, told: Any) -> None:
    (name,) = told
    found = model(f"{text}{{{{ {name} }}}}{template(prompt='<think>')}").template
    body = {"reasoning_effort": asked}
    after, wish = to_vllm_body(body, read_body(body), CHAT, found)
    assert after == {"chat_template_kwargs": told}
    assert wish.effort is not None
    assert wish.effort.value == asked  # whose worth still bounds the thinking


def test_an_effort_that_the_template_takes_is_left_where_it_is() -> None:
    found = model(TAKES + template(prompt="<think>{{ reasoning_effort }}")).template
    body = {"reasoning_effort": "low"}
    assert to_vllm_body(body, read_body(body), CHAT, found)[0] is None
    for endpoint, place in (("/v1/responses", "reasoning"), ("/v1/messages", "output_config")):
        nested = {place: {"effort": "high"}}
        after, _ = to_vllm_body(nested, read_body(nested), endpoint, found)
        assert after == {place: {}, "chat_template_kwargs": {"reasoning_effort": "xhigh"}}


# Families that are not known, and vLLM's parsers.

SEED = ("<seed:think>", "</seed:think>")


def test_an_unknown_family_is_said_at_start_with_the_remedy(
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = tokenizer_of(CHATML, (), template("{{ message.reasoning }}"))
    with caplog.at_level(logging.WARNING):
        found = model_of(made, ExitSettings(), families={})
    assert found.writing is None
    assert "name its family by --exit-family" in caplog.text
    with pytest.raises(BadParameter, match=r"writes thinking is not known.*--exit-family"):
        to_vllm_body({}, read_body({"enable_thinking": False}), CHAT, found.template)
    with pytest.raises(InvalidSetting, match=r"policy='confidence'.*name its family"):
        model_of(made, ExitSettings(policy="confidence"), families={}, demanded=True)


def test_a_tokenizer_that_is_no_fast_one_is_said_to_be_that(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        found = model_of(SimpleNamespace(), ExitSettings(), families={})
    assert found.writing is None
    assert "no fast one of transformers (--tokenizer-mode hf" in caplog.text


def test_a_model_whose_template_does_not_speak_of_thinking_has_none_to_switch_off() -> None:
    made = tokenizer_of(CHATML, (), template())
    found = model_of(made, ExitSettings(), families={}).template
    assert not found.thinks
    assert to_vllm_body({}, read_body({"enable_thinking": False}), CHAT, found)[1].already_off


def test_an_unknown_family_with_a_switch_is_switched_by_it() -> None:
    text = template(prompt="{% if not enable_thinking %}[no thinking]{% endif %}")
    found = model_of(tokenizer_of(CHATML, (), text), ExitSettings(), families={}).template
    told, asked = to_vllm_body({}, read_body({"enable_thinking": False}), CHAT, found)
    assert told == {"chat_template_kwargs": {"enable_thinking": False}}
    assert asked.already_off


def test_vllms_parser_tells_the_marks_of_a_family_without_a_row(
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = tokenizer_of(CHATML, ("<muse>", "</muse>"), template())
    parser = Parser("muse", "<muse>", "</muse>")
    with caplog.at_level(logging.INFO):
        found = model_of(made, ExitSettings(), families={}, parser=parser)
    assert found.writing is not None
    assert found.writing.thinking.start_id == made.convert_tokens_to_ids("<muse>")
    assert found.settings.closing_text == "\n</muse>\n\n"
    assert "family of parser muse" in caplog.text
    assert "by the same marks" in caplog.text


@pytest.mark.parametrize(
    ("parser", "said"),
    [
        (Parser("seed_oss", *SEED), "exits and responses would disagree"),
        (Parser("qwen3", *THINK), "by the same marks"),
        (Parser("openai_gptoss", None, None), "does not say"),
    ],
)
def test_parser_and_family_are_compared_at_start(
    parser: Parser, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    made = tokenizer_of(CHATML, (*THINK, *SEED, "<tool_call>"), template())
    with caplog.at_level(logging.INFO):
        model_of(made, ExitSettings(), families={}, family="qwen3", parser=parser)
    assert said in caplog.text


# Turns whose tokens are not special.


def test_the_tokens_of_a_turn_end_a_users_text_even_where_they_are_not_special() -> None:
    text = "{{ messages[0].content }}<｜Assistant｜>"
    made = tokenizer_of(("<s>",), ("<｜User｜>", "<｜Assistant｜>", *THINK), text)
    thinking = thinking_of(made, FAMILIES["think"], FAMILIES["think"].closing)
    special = special_ids(made)
    assert made.convert_tokens_to_ids("<｜Assistant｜>") in special
    assert made.convert_tokens_to_ids("<think>") not in special
    for prompt, continues in (
        ("<｜User｜>What is <think> for?<｜Assistant｜>", False),
        ("<｜User｜>Hello<｜Assistant｜><think>\nso far", True),
    ):
        ids = made.encode(prompt, add_special_tokens=False)
        assert continues_thinking(made, thinking, ids, special) is continues


def test_a_judges_question_is_put_with_the_templates_own_switch() -> None:
    text = template(prompt="{% if mode == 'disabled' %}<think></think>{% else %}<think>{% endif %}")
    made = model(text)
    assert made.writing is not None
    assert made.writing.chat is not None
    assert tokenizer(text).decode(made.writing.chat("Done?")).endswith("<think></think>")
    plain = tokenizer_format(tokenizer(text), made.writing.thinking)
    assert plain.chat is not None
    assert tokenizer(text).decode(plain.chat("Done?")).endswith("<think>")


# Names.


def test_families_that_write_alike_are_named_by_their_template() -> None:
    qwen = (CHATML, ("<tool_call>", "</tool_call>", *THINK))
    newer = "{{ messages[0].content }}{{ enable_thinking }}{{ '<function=' }}<think>\n"
    assert family_of(tokenizer_of(*qwen, newer)) == FAMILIES["qwen3.5"]
    assert family_of(tokenizer_of(*qwen, "{{ messages[0].content }}<think>\n")) == FAMILIES["qwq"]
    other = family_of(tokenizer_of(CHATML, THINK, "{{ messages[0].content }}"))
    assert other == FAMILIES["think"]  # not the demo's, whose template it has not
    given = family_of(tokenizer_of(*qwen, None), None, {}, newer)
    assert given == FAMILIES["qwen3.5"]


def test_a_family_of_the_operators_is_told_by_texts_of_its_template() -> None:
    own = {
        "one": Family("one", template=("zebra",)),
        "two": Family("two", template=("zebra", "lion"), closing="</think>"),
    }
    made = tokenizer("{# zebra lion #}{{ messages[0].content }}")
    assert family_of(made, None, own) == own["two"]
    assert family_of(tokenizer("{# lion #}{{ messages }}"), None, own) == FAMILIES["think"]


def test_the_end_of_a_prompt_is_all_behind_the_users_text() -> None:
    render = render_of(tokenizer(template(prompt="<think>\n")))
    assert render is not None
    assert prompt_end(render) == "<|im_end|>\n<|im_start|>assistant\n<think>\n"
    assert Template().switched(on=False) == {}
