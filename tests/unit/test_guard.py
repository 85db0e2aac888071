"""Decisions that do not come back."""

import threading
import time

import pytest

from service.engine.watchdog import PolicyTimeout, guarded
from stepgrpo_core import ExitReason
from stepgrpo_core.policies import Verdict


def for_ever() -> Verdict:
    while True:
        pass


def asleep() -> Verdict:
    time.sleep(3600)
    return Verdict()


def broken() -> Verdict:
    raise ZeroDivisionError


def test_a_loop_is_interrupted_and_later_decisions_are_not() -> None:
    for deed in (for_ever, asleep):
        with pytest.raises(PolicyTimeout):
            guarded(deed)
    for _ in range(10_000):
        assert guarded(lambda: Verdict(ExitReason.BUDGET)).reason == "budget"


def test_what_a_policy_raises_comes_through() -> None:
    with pytest.raises(ZeroDivisionError):
        guarded(broken)


def test_in_another_thread_decisions_are_left_alone() -> None:
    found: list[Verdict] = []
    thread = threading.Thread(target=lambda: found.append(guarded(Verdict)))
    thread.start()
    thread.join()
    assert found == [Verdict()]
