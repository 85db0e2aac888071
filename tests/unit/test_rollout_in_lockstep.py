"""Lock-step rounds: the trajectories of sequential probing, and who waits for whom."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.training.lockstep import Lockstep
from stepgrpo_core import ExitReason
from tests.support.training.scripted import END, EOS, FORM, PROMPT, SETTINGS, START, WAIT, Model
from training.rollouts.batch import (
    Delta,
    Request,
    Rollout,
    RolloutEngine,
    RolloutRequest,
    Sampling,
    run_rollouts,
)
from training.rollouts.scripted_engine import ScriptedEngine, Stream

SLOW, FAST = 91, 92  # the last token of the prompt says which model completes it
MODELS = {  # each exits at its last marker
    SLOW: Model((START, 10, 11, WAIT, 12, 13, WAIT, 14, END, 20, EOS), confident_from=6),
    FAST: Model((START, 10, WAIT, 11, 12, END, 20, EOS), confident_from=2),
}


def choose(request: Request) -> Stream:
    return MODELS[request.prompt_ids[len(PROMPT) - 1]](request)


def requests(*kinds: int, max_tokens: int = 64) -> list[RolloutRequest]:
    return [RolloutRequest((*PROMPT[:-1], kind), Sampling(max_tokens, seed=5)) for kind in kinds]


def sequential(engine: RolloutEngine, batch: Sequence[RolloutRequest]) -> list[Rollout]:
    return run_rollouts(engine, batch, SETTINGS, FORM, probing="sequential")


words = st.lists(st.sampled_from([WAIT, 10, 11, 12]), max_size=24)
models = st.builds(
    lambda body, sure, wait: Model((START, *body, END, 20, EOS), sure, probe_wait=wait),
    words,
    st.integers(0, 25) | st.none(),
    st.integers(0, 9),
)


@given(st.lists(st.tuples(models, st.integers(6, 40)), min_size=1, max_size=5))
def test_the_trajectories_are_those_of_sequential_probing(rows: list[tuple[Model, int]]) -> None:
    batch = [
        RolloutRequest((90, number), Sampling(limit)) for number, (_, limit) in enumerate(rows)
    ]

    def script(request: Request) -> Stream:
        return rows[request.prompt_ids[1]][0](request)

    expected = sequential(ScriptedEngine(script), batch)
    assert sequential(Lockstep(ScriptedEngine(script)), batch) == expected


def test_trials_have_a_round_of_their_own_and_answers_share_the_next_thinking() -> None:
    engine = ScriptedEngine(choose)
    barrier = Lockstep(engine)
    for rollout in sequential(barrier, requests(SLOW, FAST)):
        assert rollout.outcome.reason is ExitReason.CONFIDENT
    assert [set(batch) for batch in engine.batches] == [
        *[{"0-run1", "1-run1"}] * 4,  # up to the token behind the marker
        {"0-run1"},  # FAST waits at its marker
        *[{"0-probe0", "1-probe0"}] * 3,
        *[{"0-run2", "1-run3"}] * 3,  # SLOW goes on thinking, FAST answers
        *[{"0-probe1"}] * 3,
        *[{"0-run4"}] * 3,  # run2 of FAST and run3 of SLOW would have gone on thinking
    ]
    assert barrier.rounds == 5


def test_without_the_barrier_one_thinks_while_the_other_is_asked() -> None:
    engine = ScriptedEngine(choose)
    sequential(engine, requests(SLOW, FAST))
    assert ("0-run1", "1-probe0") in engine.batches


def test_what_waits_for_its_round_is_forgotten_without_the_engine_hearing_of_it() -> None:
    class Dying(ScriptedEngine):
        def step(self) -> Sequence[Delta]:  # type: ignore[override]
            if len(self.batches) == 4:  # FAST's trial waits for SLOW
                raise RuntimeError("engine core is gone")
            return ScriptedEngine.step(self)

    engine = Dying(choose)
    with pytest.raises(RuntimeError, match="engine core is gone"):
        sequential(Lockstep(engine), requests(SLOW, FAST))
    assert engine.aborted == ["1-run1", "0-run1"]
    assert [request.id for request in engine.requests] == ["0-run1", "1-run1"]
