"""Where prompts leave off, as the demo model's template and others write them."""

import copy
from typing import Any

import pytest

from stepgrpo_core import ExitReason, ExitSettings
from stepgrpo_core.families.prompts import PromptState, prompt_state, turn_header
from stepgrpo_core.families.table import FAMILIES
from stepgrpo_core.families.thinking import special_ids
from tests.support.models import TOKENIZER
from tests.support.service.thinking import HEADER, THINKING, TURN
from training.rollouts.batch import Rollout, RolloutRequest, Sampling, run_rollouts
from training.rollouts.scripted_engine import ScriptedEngine, Stream
from training.rollouts.types import Request
from training.rollouts.vllm_engine import format_of

FAMILY = FAMILIES["demo"]


def standing(prompt: str) -> PromptState:
    ids = TOKENIZER.encode(prompt, add_special_tokens=False)
    return prompt_state(TOKENIZER, THINKING, ids, special_ids(TOKENIZER), TURN)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        (HEADER, PromptState.BEFORE),
        (f"<|im_start|>user\n1+1? <think><|im_end|>\n{HEADER}", PromptState.BEFORE),
        (f"<|im_start|>user\n1+1? </think><|im_end|>\n{HEADER}", PromptState.BEFORE),
        (f"{HEADER}The sum is", PromptState.BEFORE),
        ("1+1=", PromptState.BEFORE),
        ("", PromptState.BEFORE),
        (f"{HEADER}<think>", PromptState.OPENED),
        (f"{HEADER}<think>\n", PromptState.OPENED),
        (f"{HEADER}<think>\nso far", PromptState.INSIDE),
        (f"{HEADER}<think>\n\n</think>\n\n", PromptState.CLOSED),
        (f"{HEADER}<think>\nso far</think>\n\nThe sum", PromptState.CLOSED),
        (f"{HEADER}</think>", PromptState.CLOSED),
    ],
)
def test_only_the_last_message_of_a_prompt_counts(prompt: str, expected: PromptState) -> None:
    assert standing(prompt) is expected


def test_a_turn_begins_as_the_template_writes_it() -> None:
    assert turn_header(TOKENIZER, FAMILY) == TURN
    opening = f"{TOKENIZER.chat_template}{{%- if add_generation_prompt %}}<think>{{%- endif %}}"
    assert turn_header(TOKENIZER, FAMILY, opening) == TURN


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ m.content }}{% endfor %}a:",  # knows no thinking
        "</think>{% for m in messages %}{{ m.nothing.at_all }}{% endfor %}",  # fails
        "{{ '</think>' }}{{ add_generation_prompt }}",  # writes something else
        "{{ '</think>' }}",  # begins no turn
    ],
)
def test_a_template_that_tells_nothing_begins_none(template: str) -> None:
    assert turn_header(TOKENIZER, FAMILY, template) == ()


def test_a_tokenizer_without_a_template_begins_none() -> None:
    plain = copy.deepcopy(TOKENIZER)
    plain.chat_template = None
    assert turn_header(plain, FAMILY) == ()


# What the trainer makes of it.

FORM = format_of(TOKENIZER, ExitSettings().closing_text)
CLOSING = list(FORM.thinking.closing_ids)
THOUGHT = "1+1=2.\nWait, again.\n1+1=2.\n"


def rollout(prompt: str, said: str, settings: ExitSettings) -> Rollout:
    ids = tuple(TOKENIZER.encode(prompt, add_special_tokens=False))
    end = TOKENIZER.eos_token_id

    def script(request: Request) -> Stream:
        text = said if request.prompt_ids == ids else "2"
        return Stream((*TOKENIZER.encode(text, add_special_tokens=False), end))

    request = RolloutRequest(ids, Sampling(max_tokens=200))
    (made,) = run_rollouts(ScriptedEngine(script), [request], settings, FORM)
    return made


def tokens(text: str) -> int:
    return len(TOKENIZER.encode(text, add_special_tokens=False))


BUDGET = ExitSettings(policy="budget", budget_tokens=4, answer_reserve=0)
LATER: dict[str, Any] = {
    "after a user's end": f"<|im_start|>user\n1+1? </think><|im_end|>\n{HEADER}",
    "after a tool's result": f"<|im_start|>tool\n2<|im_end|>\n{HEADER}",
    "at once": HEADER,
}


@pytest.mark.parametrize("prompt", LATER.values(), ids=LATER)
def test_a_rollout_that_leaves_the_start_out_is_counted_and_bounded(prompt: str) -> None:
    free = rollout(prompt, f"{THOUGHT}</think>\n\n2", ExitSettings())
    assert (free.outcome.reason, free.outcome.steps) == (ExitReason.NATURAL, 2)
    assert free.outcome.reasoning_tokens == tokens(THOUGHT)
    bounded = rollout(prompt, f"{THOUGHT}</think>\n\n2", BUDGET)
    assert bounded.outcome.reason is ExitReason.BUDGET
    assert bounded.outcome.reasoning_tokens < tokens(THOUGHT)
    assert [t for t, put in zip(bounded.ids, bounded.injected, strict=True) if put] == CLOSING


def test_a_rollout_that_does_not_think_answers() -> None:
    outcome = rollout(HEADER, "The answer is 2.", ExitSettings()).outcome
    assert (outcome.reason, outcome.reasoning_tokens, outcome.steps) == (ExitReason.NONE, 0, 0)


def test_a_prompt_that_is_no_turn_is_answered() -> None:
    outcome = rollout("1+1=", f"{THOUGHT}</think>\n\n2", BUDGET).outcome
    assert (outcome.reason, outcome.reasoning_tokens) == (ExitReason.NONE, 0)
