"""Thinking that is marked by text, whose tokens merge with their neighbors', and by several
tokens: counted, bounded, ended, asked, and rolled out."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepgrpo_core import ExitController, ExitReason, ExitSettings, Finished, InvalidSetting, Tokens
from stepgrpo_core.control.edges import Ending
from stepgrpo_core.control.probing import build_probe, induced_end, read_answer
from stepgrpo_core.families.table import FAMILIES, Family, FamilyChoice
from stepgrpo_core.families.thinking import (
    continues_thinking,
    family_of,
    opens_in_thinking,
    special_ids,
    thinking_of,
    tokenizer_format,
)
from stepgrpo_core.policies import Distribution, Induce, InducedAnswer, NextToken
from tests.support.core.families import Driver
from tests.support.core.merging import MERGES, TEMPLATE, made
from training.rollouts.batch import Request, RolloutRequest, Sampling, run_rollouts
from training.rollouts.scripted_engine import ScriptedEngine, Stream
from training.rollouts.vllm_engine import format_of

TEXT = FAMILIES["think-text"]
TOKENIZER = made()
THINKING = thinking_of(TOKENIZER, TEXT, TEXT.closing)
COUNTS = ExitSettings()


def played(text: str, settings: ExitSettings = COUNTS, **options: Any) -> Driver:
    controller = ExitController(settings, THINKING, max_tokens=4000, **options)
    driver = Driver(TOKENIZER, controller, skip_special=True)
    driver.play(text)
    return driver


def test_it_is_known_by_its_template_or_by_name() -> None:
    assert family_of(TOKENIZER) is None  # the template does not speak of it
    assert family_of(TOKENIZER, "think-text") == TEXT
    assert family_of(made(TEMPLATE + "{# write <think> and </think> #}")) == TEXT
    form = format_of(TOKENIZER, ExitSettings().closing_text, FamilyChoice("think-text"))
    assert form.thinking == THINKING
    with pytest.raises(InvalidSetting, match="must contain </think>"):
        thinking_of(TOKENIZER, TEXT, "so")
    counted = thinking_of(TOKENIZER, Family("c", text=True, exits=False), TEXT.closing)
    assert counted.closing_ids == ()


@pytest.mark.parametrize("end", ["done.</think>\n\n2", "done</think>2", "done\n</think>\n2"])
def test_thinking_is_counted_whatever_its_end_merges_with(end: str) -> None:
    text = f"<think>\n1+1=2\nWait, yes\n{end}"
    ids = TOKENIZER.encode(text, add_special_tokens=False)
    whole = [TOKENIZER.decode(ids[:size]) for size in range(len(ids) + 1)]
    first = next(size for size, each in enumerate(whole) if "<think>" in each)
    visible = text.partition("</think>")[0].rstrip("\n")
    last = next(size for size, each in enumerate(whole) if each.startswith(visible))
    outcome = played(text).finish()
    assert (outcome.reason, outcome.steps) == (ExitReason.NATURAL, 2)
    assert 0 <= outcome.reasoning_tokens - (last - first) <= 1  # the line end before its end


@pytest.mark.parametrize("text", ["2", " 2", "<thin 2", "< 2", "So <think>1</think>2"])
def test_an_answer_that_does_not_begin_with_the_mark_is_no_thinking(text: str) -> None:
    driver = played(text)
    assert driver.finish().reason is ExitReason.NONE
    assert driver.emitted == driver.played


def test_a_budget_closes_it_and_ids_read_back() -> None:
    settings = ExitSettings(policy="budget", max_steps=1, budget_leaves_answer=False)
    driver = played("<think>1+1=2.\nWait, no. Wait", settings)
    assert driver.close is not None
    assert TOKENIZER.decode(driver.emitted) == f"<think>1+1=2.\n{TEXT.closing}"
    assert driver.finish().reasoning_tokens == len("1+1=2.\n") + 1
    bare = THINKING.closing_at_end()
    assert TOKENIZER.decode(bare.closing_ids) == "\n</think>"
    assert bare.thought_in_closing == 1


def test_what_may_be_its_end_waits_and_is_never_cut_into() -> None:
    for begun in ("</", "</think", "."):
        driver = played(f"so{begun}", thinking_open=True)
        assert TOKENIZER.decode(driver.emitted) == ("so." if begun == "." else "so")
    goes_on = played("so</thinner, yes", thinking_open=True)
    assert goes_on.emitted == goes_on.played


@given(st.lists(st.sampled_from([*MERGES, "x", "<t", "k", "<call>", "<ca"]), max_size=20))
def test_tokens_are_thinking_until_the_text_of_the_end_is_complete(pieces: list[str]) -> None:
    form = thinking_of(TOKENIZER, Family("t", text=True, tools=("<call>",)), TEXT.closing)
    ending, thought = Ending(form), ""
    places = [at for at in map("".join(pieces).find, ("</think>", "<call>")) if at >= 0]
    for piece in pieces:
        texts, ended = ending.take(0, piece)
        thought += "".join(texts)
        if ended:
            head = "".join(pieces)[: min(places)]
            assert head.startswith(thought)
            assert not head[len(thought) :].strip()
            return
    assert not places
    assert thought + "".join(ending.rest()) == "".join(pieces)


def test_prompts_are_opened_continued_and_left_alone() -> None:
    special = special_ids(TOKENIZER)
    for end, opened, continues in (
        ("", False, False),
        ("<think>\n", True, False),
        ("<think>\nSo far", False, True),
        ("<think>\n</think>\n", False, False),
    ):
        ids = TOKENIZER.encode(f"<|user|>a <think> b<|end|><|assistant|>{end}")
        assert opens_in_thinking(TOKENIZER, THINKING, ids) is opened
        assert continues_thinking(TOKENIZER, THINKING, ids, special) is continues


# Questions.


def test_a_trial_ends_where_its_text_ends_the_thinking() -> None:
    writing = tokenizer_format(TOKENIZER, THINKING)
    probe = build_probe(Induce("\n\\boxed", 20), [1], [2], writing)
    assert probe is not None
    assert probe.stop_ids == ()  # no token ends it
    for text, ended in (("{2}</think>\n\nrest", True), ("{2}</thin", False)):
        ids = TOKENIZER.encode(text, add_special_tokens=False)
        logprobs = [-0.1] * len(ids)
        trial = read_answer(Induce("\n\\boxed", 20), ids, logprobs, {}, writing)
        assert isinstance(trial, InducedAnswer)
        assert trial.ended is ended
        assert "rest" not in (trial.text or "")
        assert len(trial.logprobs) == len(trial.ids) <= len(ids)
    found = read_answer(NextToken("", 20), [5], [-0.1], {5: -0.1}, writing)
    assert isinstance(found, Distribution)
    assert found.end is None  # policy margin has nothing to compare, and never exits


# Rollouts.


class Model:
    """Thinks for two steps, is confident after one, and answers behind the closing."""

    THOUGHT = "<think>1+1=2.\n\nWait, again: 2.</think>2"

    def __call__(self, request: Request) -> Stream:
        text = TOKENIZER.decode(request.prompt_ids)
        if text.endswith("\\boxed"):
            return self._stream("{2}</think>\n\n", request, 0.0)
        if text.endswith(TEXT.closing):
            return self._stream("2", request, -0.2)
        return self._stream(self.THOUGHT, request, -0.2)

    def _stream(self, text: str, request: Request, logprob: float) -> Stream:
        ids = [*TOKENIZER.encode(text, add_special_tokens=False), TOKENIZER.eos_token_id]
        ids = ids[: request.sampling.max_tokens]
        return Stream(tuple(ids), (logprob,) * len(ids))


@pytest.mark.parametrize("policy", ["confidence", "none"])
def test_rollouts_of_a_base_that_writes_its_marks_as_text(policy: str) -> None:
    form = format_of(TOKENIZER, ExitSettings().closing_text, FamilyChoice("think-text"))
    prompt = tuple(TOKENIZER.encode("<|user|>1+1?<|end|><|assistant|>"))
    settings = ExitSettings(policy=policy, min_interval=0, answer_reserve=1)
    engine = ScriptedEngine(Model())
    (rollout,) = run_rollouts(engine, [RolloutRequest(prompt, Sampling(200))], settings, form)
    text = TOKENIZER.decode(rollout.ids, skip_special_tokens=True)
    if policy == "none":
        assert text == Model.THOUGHT
        assert (rollout.outcome.reason, rollout.outcome.steps) == (ExitReason.NATURAL, 2)
        return
    assert text == f"<think>1+1=2.\n\n{TEXT.closing}2"
    assert (rollout.outcome.reason, rollout.outcome.steps) == (ExitReason.CONFIDENT, 1)
    assert rollout.outcome.confidence is not None
    assert math.isclose(rollout.outcome.confidence, 1.0)
    injected = [each for each, put in zip(rollout.ids, rollout.injected, strict=True) if put]
    assert tuple(injected) == form.thinking.closing_ids


# Several tokens.

SEVERAL = Family("s", start="<|a|>think<|b|>", end="<|c|>think<|b|>", closing="<|c|>think<|b|>!")


def test_starts_and_ends_of_several_tokens_share_their_tokens() -> None:
    tokenizer = made()
    tokenizer.add_tokens(["<|a|>", "<|b|>", "<|c|>"], special_tokens=True)
    thinking = thinking_of(tokenizer, SEVERAL, SEVERAL.closing)
    controller = ExitController(ExitSettings(), thinking)
    ids: Sequence[int] = tokenizer.encode("<|a|>think<|b|>so<|b|><|c|>think<|b|>2")
    texts = [tokenizer.decode([each], skip_special_tokens=True) for each in ids]
    controller.receive(Tokens(ids, texts), Finished("eos"))
    assert controller.outcome.reason is ExitReason.NATURAL
    assert controller.outcome.reasoning_tokens == len("so") + 1
    assert thinking.thought_in_closing == 0


def test_what_goes_on_with_the_text_of_a_start_is_no_answer() -> None:
    ids = TOKENIZER.encode("<think>2", add_special_tokens=False)
    texts = [TOKENIZER.decode([each]) for each in ids]
    driver = played("<")
    for token, text in zip(ids[1:-1], texts[1:-1], strict=True):
        assert not driver.controller.would_answer(token, text)
        driver.play(text)
    other = played("<")
    assert other.controller.would_answer(ids[-1], "2")
    assert not other.controller.would_answer(ids[1], "think>\n")


def test_a_trial_that_nobody_can_read_has_not_ended() -> None:
    assert induced_end(THINKING, [1, 2], None) == (2, False)


def test_the_token_in_which_the_end_begins_is_thinking_if_it_shows_some() -> None:
    for pieces, thought in (
        (["so", ".</", "think>"], ["so", "."]),
        (["so", "\n</think>\n"], ["so"]),
        (["so", "x</think>"], ["so", "x"]),
        (["", "</think>"], [""]),
    ):
        ending = Ending(THINKING)
        taken = [ending.take(0, piece) for piece in pieces]
        assert [text for texts, _ in taken for text in texts] == thought
        assert taken[-1][1]
