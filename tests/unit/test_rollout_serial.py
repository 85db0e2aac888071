"""S-GRPO's rollout over the scripted engine."""

from collections.abc import Sequence

from stepgrpo_core import ExitSettings
from tests.support.training.scripted import (
    ANSWER,
    BLANK,
    END,
    FORM,
    NEWLINE,
    PROMPT,
    THINKING,
    Model,
)
from training.rollouts.batch import Rollout, RolloutRequest, Sampling, run_rollouts
from training.rollouts.s_grpo import serial_rollouts
from training.rollouts.scripted_engine import ScriptedEngine

CLOSING = (NEWLINE, END, BLANK)


def group(size: int, seed: int = 1, thinking: tuple[int, ...] = THINKING) -> list[Rollout]:
    engine = ScriptedEngine(Model(thinking))

    def run(requests: Sequence[RolloutRequest], settings: ExitSettings) -> list[Rollout]:
        return run_rollouts(engine, requests, settings, FORM)

    requests = [
        RolloutRequest(PROMPT, Sampling(max_tokens=64, seed=seed + row)) for row in range(size)
    ]
    return serial_rollouts(run, requests, size, FORM)


def test_a_group_is_cuts_of_one_chain_shortest_first_and_the_chain() -> None:
    rollouts = group(5)
    assert rollouts[-1].ids == THINKING
    cuts = [each.ids.index(NEWLINE) for each in rollouts[:-1]]
    assert cuts == sorted(set(cuts))
    for rollout, cut in zip(rollouts[:-1], cuts, strict=True):
        assert rollout.ids == (*THINKING[:cut], *CLOSING, *ANSWER)
        assert rollout.prompt_ids == PROMPT
        assert 2 <= cut < THINKING.index(END)


def test_the_injected_end_is_marked_and_has_no_log_prob() -> None:
    for rollout in group(4)[:-1]:
        cut = rollout.ids.index(NEWLINE)
        assert [place for place, put in enumerate(rollout.injected) if put] == [
            cut,
            cut + 1,
            cut + 2,
        ]
        assert [value is None for value in rollout.logprobs] == list(rollout.injected)


def test_equal_seeds_give_equal_cuts_and_others_others() -> None:
    assert group(5, seed=3) == group(5, seed=3)
    assert any(group(5, seed=3) != group(5, seed=seed) for seed in range(4, 9))


def test_a_chain_too_short_for_different_cuts_still_fills_its_group() -> None:
    rollouts = group(6, thinking=(1, 10, END, 20, 3))
    assert len(rollouts) == 6
    assert {each.ids.index(NEWLINE) for each in rollouts[:-1]} == {2}
