"""Load shedding of probes: when one more may start."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vllm.v1.engine import FinishReason
from vllm.v1.metrics.stats import FinishedRequestStats, IterationStats

from service.load.probe_load import Load, refusal
from service.params.limits import ProbeLimits
from service.records.reasons import Refusal
from stepgrpo_core import InvalidSetting


class Stats:
    def __init__(self, waiting: int) -> None:
        self.num_waiting_reqs = waiting


class Manager:
    def __init__(self) -> None:
        self.stat_loggers: list[object] = []


@pytest.mark.parametrize(
    ("running", "probes", "waiting", "expected"),
    [
        (1, 0, 0, None),  # one may always run
        (2, 1, 0, Refusal.LOAD),
        (6, 1, 0, Refusal.LOAD),  # two of seven are more than a quarter
        (7, 1, 0, None),  # two of eight are not
        (31, 7, 0, None),
        (31, 8, 0, Refusal.LOAD),
        (1, 0, 1, Refusal.QUEUE),
        (32, 0, 0, Refusal.QUEUE),  # it would have to wait itself
    ],
)
def test_a_share_of_the_running_sequences_and_none_while_others_wait(
    running: int, probes: int, waiting: int, expected: Refusal | None
) -> None:
    found = refusal(running=running, probes=probes, waiting=waiting, capacity=32, share=0.25)
    assert found is expected


@given(st.lists(st.booleans(), max_size=200), st.floats(0.01, 1), st.integers(1, 64))
def test_probes_never_exceed_their_share_when_they_start(
    wishes: list[bool], share: float, capacity: int
) -> None:
    load = Load(capacity=capacity, share=share)
    for probe in wishes:
        if not probe:
            load.enter(1)
        elif load.refusal() is None:
            load.enter(1, probe=True)
            assert load.probes <= max(1, math.floor(share * load.running))
            assert load.running <= capacity


def test_sequences_are_counted_in_and_out() -> None:
    load = Load(capacity=8, share=0.25)
    leave, probe = load.enter(3), load.enter(1, probe=True)
    assert (load.running, load.probes) == (4, 1)
    leave()
    assert (load.running, load.probes) == (1, 1)
    probe()
    assert (load.running, load.probes) == (0, 0)


def test_who_waits_in_any_engine_is_heard_from_its_statistics() -> None:
    load, manager = Load(capacity=8, share=0.25), Manager()
    load.watch(manager)
    assert manager.stat_loggers == [load]
    load.record(Stats(0), None, engine_idx=0)
    load.record(Stats(2), None, engine_idx=1)
    load.record(None, None, engine_idx=1)
    assert (load.waiting, load.refusal()) == (2, Refusal.QUEUE)
    load.record(Stats(0), None, engine_idx=1)
    assert load.refusal() is None
    Load(capacity=8, share=0.25).watch(None)  # --disable-log-stats


def test_what_no_user_asked_for_is_no_finished_request_of_vllms_metrics() -> None:
    load, manager = Load(capacity=8, share=0.25), Manager()
    manager.stat_loggers.append("vLLM's")
    load.watch(manager)
    assert manager.stat_loggers[0] is load  # it changes what the next ones count
    ids = ["chatcmpl-1", f"chatcmpl-1-probe{load.own_suffix}", "chatcmpl-own-2", None]
    step = IterationStats()
    step.finished_requests = [FinishedRequestStats(FinishReason.STOP, each) for each in ids]
    load.record(None, step)
    assert [each.request_id for each in step.finished_requests] == [ids[0], *ids[2:]]
    assert Load(capacity=8, share=0.25).own_suffix != load.own_suffix


def is_stalled(load: Load) -> bool:
    """Return `stalled` through a call, because mypy narrows an asserted attribute."""
    return load.stalled


def test_a_stall_is_ten_seconds_without_a_step_while_something_runs() -> None:
    now = 100.0
    load = Load(capacity=8, share=0.25, clock=lambda: now)
    load.watch(Manager())
    now = 200.0
    assert not is_stalled(load)  # nothing runs
    leave = load.enter(1)
    now = 209.0
    assert not is_stalled(load)
    now = 210.0
    load.enter(1)()  # starting and ending a sequence is not a step
    assert is_stalled(load)
    load.record(None, None)
    assert not is_stalled(load)
    now = 221.0
    assert is_stalled(load)
    leave()
    assert not is_stalled(load)
    load.enter(1)
    assert not is_stalled(load)


def test_an_engine_that_tells_nothing_of_its_steps_is_not_said_to_stall() -> None:
    now = 0.0
    load = Load(capacity=8, share=0.25, clock=lambda: now)
    load.watch(None)  # --disable-log-stats
    load.enter(1)
    now = 1000.0
    assert not is_stalled(load)


@pytest.mark.parametrize("share", [0, -0.5, 1.5, math.nan])
def test_a_share_that_cannot_be_is_refused(share: float) -> None:
    with pytest.raises(InvalidSetting, match="probe_load"):
        ProbeLimits(probe_load=share)


def test_time_with_work_is_told_and_idle_time_is_not() -> None:
    now, told = [100.0], list[float]()
    load = Load(capacity=8, share=1.0, clock=lambda: now[0], on_busy=told.append)
    load.record(None, None)
    now[0] = 150
    leave = load.enter(1)
    for now[0] in (151.0, 153.0):
        load.record(None, None)
    leave()
    now[0] = 200
    load.record(None, None)
    assert told == [1, 2]
