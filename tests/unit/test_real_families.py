"""Families on published chat templates and real vocabularies (`tests.support.core.published`)."""

import functools
import logging
from typing import Any

import pytest
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.reasoning import ReasoningParserManager

from service.params import Template, read_body, to_vllm_body
from service.params.model import model_of
from service.params.reasoning_parser import parser_of
from stepgrpo_core import ExitController, ExitReason, ExitSettings, InvalidSetting
from stepgrpo_core.families.table import FAMILIES as ROWS
from stepgrpo_core.families.table import Family, apply_family
from stepgrpo_core.families.templates import closed_by, render_of
from stepgrpo_core.families.thinking import (
    adapt_family,
    continues_thinking,
    family_of,
    opens_in_thinking,
    special_ids,
    thinking_of,
)
from tests.support.core.families import Driver
from tests.support.core.published import FAMILIES, tokenizer_of, vocabulary

CHAT = "/v1/chat/completions"
STEPS = ExitSettings(policy="budget", max_steps=1, budget_leaves_answer=False)
THOUGHT = "First I add 47 and 8, which is 55 – 等等.\n\nWait, is it? Yes: 55 < 56, so 🙂.\n"
ANSWER = "The answer is \\boxed{55}. Wait, I said so."


@functools.cache
def family(name: str) -> Family:
    tokenizer = tokenizer_of(name)
    found = family_of(tokenizer)
    assert found is not None
    return adapt_family(tokenizer, found)


def driver(name: str, settings: ExitSettings, *, opened: bool) -> Driver:
    found = apply_family(settings, family(name))
    thinking = thinking_of(tokenizer_of(name), family(name), found.closing_text)
    controller = ExitController(found, thinking, max_tokens=4000, thinking_open=opened)
    return Driver(tokenizer_of(name), controller, skip_special=False)


def prompt(name: str, text: str, **variables: Any) -> list[int]:
    ids: list[int] = tokenizer_of(name).apply_chat_template(
        [{"role": "user", "content": text}],
        add_generation_prompt=True,
        return_dict=False,
        **variables,
    )
    return ids


def state(name: str, ids: list[int]) -> str:
    """Of a prompt's thinking: open, closed, or plain."""
    tokenizer, of = tokenizer_of(name), family(name)
    if opens_in_thinking(tokenizer, thinking_of(tokenizer, of, of.closing), ids):
        return "open"
    return "closed" if closed_by(of, tokenizer.decode(ids[-40:])) else "plain"


@pytest.mark.parametrize("name", FAMILIES)
def test_a_real_family_is_recognized_by_tokens_and_template(name: str) -> None:
    assert family(name).name == FAMILIES[name].family


@pytest.mark.parametrize("name", FAMILIES)
def test_its_closing_text_is_what_the_template_writes_before_an_answer(name: str) -> None:
    closing = family(name).closing
    assert closing == FAMILIES[name].closing
    fields = dict.fromkeys(("reasoning_content", "reasoning", "thinking"), "zebra")
    turn = {"role": "assistant", "content": "giraffe", **fields}
    render = render_of(tokenizer_of(name))
    assert render is not None
    said = {"role": "user", "content": "Hello"}
    written = [render([said, turn], enable_thinking=on, thinking=on) or "" for on in (True, False)]
    if shown := [text for text in written if "zebra" in text]:
        assert f"zebra{closing}giraffe" in shown[0]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_prompts_thinking_is_open_closed_or_not_begun_as_the_template_says(name: str) -> None:
    real, of, tokenizer = FAMILIES[name], family(name), tokenizer_of(name)
    thinking, special = thinking_of(tokenizer, of, of.closing), special_ids(tokenizer)
    plain = prompt(name, "What is 47+8?")
    assert state(name, plain) == real.state
    hostile = prompt(name, f"What does {of.start} do, and {of.end}? {of.start}\n so far")
    assert state(name, hostile) == real.state  # a user's text is text
    assert not continues_thinking(tokenizer, thinking, hostile, special)
    begun = tokenizer.encode(f"{of.start}\nSo far", add_special_tokens=False)
    assert continues_thinking(tokenizer, thinking, [*prompt(name, "Hi"), *begun], special)


@pytest.mark.parametrize("name", FAMILIES)
def test_what_opens_its_tool_calls_ends_the_thinking(name: str) -> None:
    real = FAMILIES[name]
    if real.tool is None:
        pytest.skip("its template writes no call that opens in a token of its own")
    played = driver(name, STEPS, opened=True)
    played.play(f"I call it.\n{real.tool}Wait, no. Wait, Wait")
    assert played.close is None
    assert played.finish().reason is ExitReason.NATURAL


@pytest.mark.parametrize("name", FAMILIES)
def test_switching_off_closes_the_prompt_or_is_refused(name: str) -> None:
    model = model_of(tokenizer_of(name), ExitSettings(), families={})
    body = read_body({"enable_thinking": False})
    if not FAMILIES[name].off:
        assert not model.template.can_switch
        return
    told, asked = to_vllm_body({}, body, CHAT, model.template)
    assert told is not None
    assert asked.already_off
    variables = told["chat_template_kwargs"]
    assert state(name, prompt(name, "What is 47+8?", **variables)) != "open"
    on = model.template.switched(on=True)
    assert prompt(name, "Hi", **variables) != prompt(name, "Hi", **on)


@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_stream_comes_to_the_same_as_the_whole(name: str, opened: bool) -> None:
    of, tokenizer = family(name), tokenizer_of(name)
    played = driver(name, ExitSettings(), opened=opened)
    text = f"{'' if opened else of.start}{THOUGHT}{of.closing.lstrip()}{ANSWER}"
    played.play(text)
    outcome = played.finish()
    assert played.emitted == played.played
    assert tokenizer.decode(played.emitted, skip_special_tokens=False) == text
    assert (outcome.reason, outcome.steps) == (ExitReason.NATURAL, 2)
    size = len(tokenizer.encode(THOUGHT, add_special_tokens=False))
    merged = 2 if of.text else 0  # of marks that are text, the neighbors' tokens may be part
    assert abs(outcome.reasoning_tokens - size) <= merged


@pytest.mark.parametrize("name", FAMILIES)
def test_an_exit_writes_the_familys_own_closing_in_ids_that_read_back(name: str) -> None:
    of, tokenizer = family(name), tokenizer_of(name)
    played = driver(name, STEPS, opened=True)
    played.play(THOUGHT + "Wait, again.")
    assert played.close is not None
    kept = tokenizer.decode(played.emitted, skip_special_tokens=False)
    assert kept == f"{THOUGHT.partition('Wait')[0]}{of.closing}"
    played.play(ANSWER)
    outcome = played.finish()
    assert (outcome.reason, outcome.steps) == (ExitReason.BUDGET, 1)
    bare = thinking_of(tokenizer, of, of.closing).closing_at_end()
    assert tokenizer.decode(bare.closing_ids) == of.closing.rstrip()


PARSERS = {
    "Qwen3.5": "qwen3",
    "R1-Distill-Llama": "deepseek_r1",
    "DeepSeek-V4": "deepseek_v4",
    "GLM-4.7": "glm47",
    "Kimi-K3": "kimi_k3",
    "Nemotron-3-Nano": "nemotron_v3",
    "Nemotron-Nano-v2": "olmo3",  # which reads marks that are text
    "MiniMax-M3": "minimax_m3",
    "Seed-OSS": "seed_oss",
    "Gemma-4-31B": "gemma4",
    "StepFun-3.5": "step3p5",
    "Ling-3": "ling3",
}
"""vLLM's reasoning parsers."""


@pytest.mark.parametrize("name", PARSERS)
def test_vllms_parser_reads_an_exit_as_it_was_meant(name: str) -> None:
    of, tokenizer = family(name), tokenizer_of(name)
    told = parser_of(PARSERS[name], tokenizer)
    assert told is not None
    assert (told.start, told.end) == (of.start, of.end)
    parser = ReasoningParserManager.get_reasoning_parser(PARSERS[name])(tokenizer)
    request = ChatCompletionRequest(model="m", messages=[{"role": "user", "content": "Hi"}])
    text = f"{of.start}I add.\n{of.closing}It is 55."
    reasoning, content = parser.extract_reasoning(text, request)
    assert (reasoning.strip(), content.strip()) == ("I add.", "It is 55.")


# One that is not known.


def test_a_model_that_does_not_think_is_of_no_family_but_may_be_told_to_write_text(
    caplog: pytest.LogCaptureFixture,
) -> None:
    from transformers import PreTrainedTokenizerFast  # noqa: PLC0415 - as the tests' module does

    llama = PreTrainedTokenizerFast.from_pretrained(vocabulary("llama3_1"))
    with caplog.at_level(logging.WARNING):
        found = model_of(llama, ExitSettings(), families={})
    assert found.writing is None
    assert found.template == Template(thinks=False, known=False)
    assert "--exit-family" in caplog.text
    with pytest.raises(InvalidSetting, match="--reasoning-parser"):
        model_of(llama, ExitSettings(policy="budget"), families={}, demanded=True)
    named = model_of(llama, ExitSettings(), families={}, family="think-text")
    assert named.writing is not None
    thinking = named.writing.thinking
    controller = ExitController(ExitSettings(), thinking)
    played = Driver(llama, controller, skip_special=True)
    played.play("<think>1+1.</think>2")  # ".</" and ">" with what follows are single tokens
    outcome = played.finish()
    assert outcome.reason is ExitReason.NATURAL
    assert played.emitted == played.played
    assert ROWS["think-text"].text


def test_a_word_that_switches_off_is_found_where_no_variable_does() -> None:
    found = model_of(tokenizer_of("Nemotron-Nano-v2"), ExitSettings(), families={}).template
    assert (found.can_switch, found.word) == (False, "/no_think")


def test_an_effort_that_a_published_template_refuses_goes_to_it_as_one_that_it_takes() -> None:
    for name, effort, told in (
        ("Qwen3.8", "high", {"reasoning_effort": "xhigh", "enable_thinking": True}),
        ("Kimi-K3", "medium", {"thinking_effort": "high", "thinking": True}),
        ("Hy3", "medium", {"reasoning_effort": "high"}),
    ):
        found = model_of(tokenizer_of(name), ExitSettings(), families={}).template
        body = {"reasoning_effort": effort}
        after, _ = to_vllm_body(body, read_body(body), CHAT, found)
        assert after == {"chat_template_kwargs": told}
        assert prompt(name, "Hi", **told)  # which "high" and "medium" would have failed
    solar = model_of(tokenizer_of("Solar-Open"), ExitSettings(), families={}).template
    after, asked = to_vllm_body(
        {"reasoning_effort": "none"}, read_body({"reasoning_effort": "none"}), CHAT, solar
    )
    assert after == {"chat_template_kwargs": {"reasoning_effort": "minimal"}}
    assert asked.already_off
