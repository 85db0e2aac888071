"""Training grades as the answer what the controller, and so the server, calls the answer."""

import dataclasses
from collections.abc import Sequence

import pytest

from stepgrpo_core import ExitSettings, answer_text
from stepgrpo_core.families.table import FAMILIES, FamilyChoice
from stepgrpo_core.families.thinking import opens_in_thinking
from tests.support.core.families import LIMITED, family_tokenizer
from training.rollouts.batch import Format, Request, Rollout, RolloutRequest, Sampling, run_rollouts
from training.rollouts.s_grpo import serial_rollouts
from training.rollouts.scripted_engine import ScriptedEngine, Stream
from training.rollouts.texts import completion_text, text_of
from training.rollouts.vllm_engine import format_of

ALL = [name for name, family in FAMILIES.items() if family.exits]
THOUGHT, ANSWER = "is it \\boxed{1}? Wait, no", "it is \\boxed{2}"
PLAIN = ExitSettings()


class Case:
    """A family's tokenizer, and a model that writes given texts."""

    def __init__(self, name: str) -> None:
        self.tokenizer = family_tokenizer(name)
        self.family = FAMILIES[name]
        self.form = format_of(self.tokenizer, PLAIN.closing_text, FamilyChoice(name))
        prompt = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": "1+1?"}], add_generation_prompt=True, return_dict=False
        )
        self.prompt = tuple(prompt)
        self.opened = opens_in_thinking(self.tokenizer, self.form.thinking, self.prompt)
        self.start = "" if self.opened else self.family.start

    def ids(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode(text, add_special_tokens=False))

    def request(self) -> RolloutRequest:
        return RolloutRequest(self.prompt, Sampling(400, seed=1), self.opened)

    def rollout(
        self,
        text: str,
        settings: ExitSettings = PLAIN,
        form: Format | None = None,
        *,
        cut: bool = False,
    ) -> Rollout:
        def model(request: Request) -> Stream:
            closed = request.prompt_ids != self.prompt
            return Stream(self.ids(ANSWER if closed else text), cause="length" if cut else "eos")

        (made,) = run_rollouts(ScriptedEngine(model), [self.request()], settings, form or self.form)
        return made

    def answer(self, rollout: Rollout) -> str | None:
        text = text_of(rollout, self.tokenizer, self.form.thinking)
        start, end = self.family.start, self.family.end
        return answer_text(text, thinking_open=rollout.thinking_open, start=start, end=end)


@pytest.fixture(params=ALL)
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def test_the_answer_stands_after_the_thinking_that_the_model_closed(case: Case) -> None:
    made = case.rollout(f"{case.start}{THOUGHT}{case.family.closing}{ANSWER}.")
    assert made.outcome.reasoning_tokens > 0
    found = case.answer(made)
    assert found is not None
    assert ANSWER in found
    assert "\\boxed{1}" not in found


def test_the_answer_stands_after_the_thinking_that_an_exit_closed(case: Case) -> None:
    made = case.rollout(f"{case.start}{THOUGHT}, and so on", LIMITED)
    assert any(made.injected)
    found = case.answer(made)
    assert found is not None
    assert found.strip().endswith(ANSWER)


def test_thinking_that_never_closed_has_no_answer(case: Case) -> None:
    assert case.answer(case.rollout(f"{case.start}{THOUGHT}")) is None


def test_without_thinking_everything_is_the_answer(case: Case) -> None:
    if case.opened:
        return
    assert case.answer(case.rollout(f"{ANSWER}.")) == f"{ANSWER}."


@pytest.mark.parametrize("name", ["think", "cohere"])
def test_thinking_that_needs_no_start_is_no_answer_until_it_ends(name: str) -> None:
    """As in the server, text with neither start nor end is an answer only if the model ended it."""
    case = Case(name)
    implied = dataclasses.replace(case.form, turn=case.prompt[-1:])
    closed = case.rollout(f"{THOUGHT}{case.family.closing}{ANSWER}.", form=implied)
    assert (case.answer(closed) or "").strip() == f"{ANSWER}."
    cut = case.rollout(f"{THOUGHT}, and so on", form=implied, cut=True)
    assert case.answer(cut) is None
    assert case.answer(case.rollout(f"{ANSWER}.", form=implied)) == f"{ANSWER}."


def test_an_end_of_message_without_thinking_is_no_end_of_thinking() -> None:
    """Solar ends messages with the token that ends its thinking."""
    case = Case("solar")
    assert case.answer(case.rollout(f"{ANSWER}.<|end|>")) == f"{ANSWER}."


def test_the_marks_of_a_later_message_are_left_out() -> None:
    case = Case("gpt-oss")
    ids = case.ids(f"{case.start}x<|end|><|start|>assistant<|channel|>final<|message|>y<|return|>")
    text = completion_text(case.tokenizer, ids, case.form.thinking, thinks=False)
    assert text == "<|channel|>analysis<|message|>x<|end|>assistantfinaly"


def test_cuts_of_a_chain_keep_its_start_whole_and_count_its_thinking(case: Case) -> None:
    """S-GRPO, also where several tokens or a text start the thinking."""
    chain = case.ids(f"{case.start}{THOUGHT}{case.family.closing}{ANSWER}.")

    def model(request: Request) -> Stream:
        return Stream(chain if request.prompt_ids == case.prompt else case.ids(ANSWER))

    def run(requests: Sequence[RolloutRequest], settings: ExitSettings) -> list[Rollout]:
        return run_rollouts(ScriptedEngine(model), requests, settings, case.form)

    group = serial_rollouts(run, [case.request()] * 12, 12, case.form)
    begin = len(case.ids(case.start))
    for made in group[:-1]:
        cut = made.injected.index(True)
        assert chain[:begin] == made.ids[:begin]
        assert 1 <= cut - begin < group[-1].outcome.reasoning_tokens
        thought = cut - begin + case.form.thinking.thought_in_closing
        assert made.outcome.reasoning_tokens == thought
        assert ANSWER in (case.answer(made) or "")
