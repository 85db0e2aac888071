"""Rollouts over the scripted engine: what trajectories come out, and that nobody waits."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepgrpo_core import ExitReason, ExitSettings
from tests.support.training.scripted import (
    ANSWER,
    BLANK,
    END,
    EOS,
    FORM,
    NEWLINE,
    PROMPT,
    SETTINGS,
    START,
    THINKING,
    WAIT,
    Model,
)
from training.rollouts.batch import Delta, Probing, Rollout, RolloutRequest, Sampling, run_rollouts
from training.rollouts.scripted_engine import ScriptedEngine


def complete(
    model: Model,
    settings: ExitSettings = SETTINGS,
    probing: Probing = "parallel",
    max_tokens: int = 64,
) -> tuple[Rollout, ScriptedEngine]:
    engine = ScriptedEngine(model)
    request = RolloutRequest(PROMPT, Sampling(max_tokens=max_tokens, seed=5))
    (rollout,) = run_rollouts(engine, [request], settings, FORM, probing=probing)
    return rollout, engine


def test_without_a_policy_the_completion_is_what_was_generated() -> None:
    rollout, engine = complete(Model(confident_from=0), ExitSettings())
    assert rollout.ids == THINKING
    assert rollout.logprobs == tuple(-token / 100 for token in THINKING)
    assert not any(rollout.injected)
    assert (rollout.ended, rollout.outcome.reason) == (True, ExitReason.NATURAL)
    assert len(engine.requests) == 1


@pytest.mark.parametrize("probing", ["parallel", "sequential"])
def test_a_confident_probe_ends_the_thinking_before_its_marker(probing: Probing) -> None:
    rollout, _ = complete(Model(confident_from=6), probing=probing)
    assert rollout.ids == (*THINKING[:6], NEWLINE, END, BLANK, *ANSWER)
    assert rollout.outcome.reason is ExitReason.CONFIDENT
    assert rollout.outcome.steps == 2
    assert rollout.outcome.confidences == pytest.approx((0.5**0.5, 0.99**0.5))
    assert rollout.probe_tokens == 6


def test_injected_tokens_are_marked_and_have_no_log_prob() -> None:
    rollout, _ = complete(Model(confident_from=3))
    assert rollout.injected == (False,) * 3 + (True,) * 3 + (False,) * 3
    assert rollout.logprobs == (-0.01, -0.1, -0.11, None, None, None, -0.3, -0.2, -0.1)


def test_the_answer_shares_the_limit_and_the_seed_of_its_sequence() -> None:
    rollout, engine = complete(Model(confident_from=3), max_tokens=8)
    answer = engine.requests[-1]
    assert answer.prompt_ids == (*PROMPT, *THINKING[:3], NEWLINE, END, BLANK)
    assert (answer.sampling.max_tokens, answer.sampling.seed) == (2, 5)
    assert len(rollout.ids) == 8
    assert not rollout.ended


def test_a_trial_that_does_not_close_the_thinking_is_no_exit() -> None:
    rollout, _ = complete(Model(confident_from=0, probe_ends=False))
    assert rollout.ids == THINKING
    assert rollout.outcome.confidences == (0.0, 0.0)


def test_thinking_goes_on_beside_its_probe() -> None:
    rollout, engine = complete(Model(confident_from=3, probe_wait=2))
    together = [batch for batch in engine.batches if "0-run1" in batch and len(batch) > 1]
    assert len(together) >= 3
    assert rollout.discarded_tokens > 1


def test_sequential_probing_generates_nothing_behind_an_undecided_marker() -> None:
    rollout, engine = complete(Model(confident_from=6, probe_wait=2), probing="sequential")
    assert all(len(batch) == 1 for batch in engine.batches)
    # The marker is known to be one when the token after it is there.
    assert rollout.discarded_tokens == 2


def test_a_declined_probe_resumes_with_the_marker_and_another_seed() -> None:
    rollout, engine = complete(Model(), probing="sequential")
    assert rollout.ids == THINKING
    resumed = next(each for each in engine.requests if each.id == "0-run2")
    assert resumed.prompt_ids == PROMPT + THINKING[:5]
    assert resumed.sampling.max_tokens == 64 - 5
    assert resumed.sampling.seed not in (5, None)


words = st.lists(st.sampled_from([WAIT, 10, 11, 12]), max_size=24)


@given(words, st.integers(0, 25) | st.none(), st.integers(0, 9), st.integers(6, 40))
def test_parallel_and_sequential_probing_give_the_same_trajectory(
    body: list[int], confident_from: int | None, wait: int, max_tokens: int
) -> None:
    model = Model((START, *body, END, 20, EOS), confident_from, probe_wait=wait)
    parallel, _ = complete(model, max_tokens=max_tokens)
    sequential, _ = complete(model, probing="sequential", max_tokens=max_tokens)
    for name in ("ids", "logprobs", "injected", "ended"):
        assert getattr(parallel, name) == getattr(sequential, name)
    assert parallel.outcome.reason == sequential.outcome.reason
    assert parallel.outcome.steps == sequential.outcome.steps


def test_nobody_waits_for_the_probe_of_another() -> None:
    slow = Model(confident_from=3, probe_wait=50)
    engine = ScriptedEngine(slow)
    free = RolloutRequest(PROMPT, Sampling(max_tokens=3))  # cut by its limit before any marker
    finished: list[int] = []
    run_rollouts(
        engine,
        [RolloutRequest(PROMPT, Sampling(max_tokens=64)), free, free],
        SETTINGS,
        FORM,
        finished=lambda rollout: finished.append(len(engine.batches)),
    )
    assert finished[:2] == [3, 3]
    assert finished[2] > 50


def test_results_come_in_the_order_of_the_requests() -> None:
    requests = [RolloutRequest(PROMPT, Sampling(max_tokens=limit)) for limit in (9, 3, 6)]
    rollouts = run_rollouts(ScriptedEngine(Model()), requests, ExitSettings(), FORM)
    assert [len(each.ids) for each in rollouts] == [9, 3, 6]
    assert [each.ended for each in rollouts] == [False] * 3


def test_an_engine_that_dies_raises_through_and_the_rest_is_aborted() -> None:
    class Dying(ScriptedEngine):
        def step(self) -> Sequence[Delta]:  # type: ignore[override]
            if len(self.batches) == 2:
                raise RuntimeError("engine core is gone")
            return ScriptedEngine.step(self)

    engine = Dying(Model())
    requests = [RolloutRequest(PROMPT, Sampling(max_tokens=64))] * 2
    with pytest.raises(RuntimeError, match="engine core is gone"):
        run_rollouts(engine, requests, SETTINGS, FORM)
    assert engine.aborted == ["0-run1", "1-run1"]
