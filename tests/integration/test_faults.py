"""Probes and policies that fail: no request does."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from vllm.outputs import RequestOutput

from service.records.sequence import SequenceRecord
from stepgrpo_core import POLICIES, ExitReason, ExitSettings
from stepgrpo_core.policies import Answer, Boundary, BoundaryKind, Needs, Verdict
from tests.support.engines import Fault, Machine, Ours

pytestmark = pytest.mark.integration

COUNT = 6


def asked(machine: Machine, ours: Ours, policy: str, **options: Any) -> list[Any]:
    """The first problems, greedy, side by side."""

    async def together() -> list[Any]:
        return await asyncio.gather(*(ours.ask(i, policy, seed=0, **options) for i in range(COUNT)))

    return machine.run(together())  # type: ignore[no-any-return]


def ids_of(answers: list[Any]) -> list[list[int]]:
    return [ids[0] for ids, _ in answers]


def records_of(answers: list[Any]) -> list[SequenceRecord]:
    return [records[0] for _, records in answers]


@pytest.fixture(scope="module")
def plain(machine: Machine) -> list[list[int]]:
    """What the model says without exits."""
    return ids_of(asked(machine, machine.ours(), "none"))


# Probes (F12).


async def raising(outputs: AsyncIterator[RequestOutput]) -> AsyncIterator[RequestOutput]:
    async for output in outputs:
        yield output
        raise RuntimeError("the probe is lost")


async def hanging(outputs: AsyncIterator[RequestOutput]) -> AsyncIterator[RequestOutput]:
    del outputs
    await asyncio.Event().wait()
    yield


async def silent(outputs: AsyncIterator[RequestOutput]) -> AsyncIterator[RequestOutput]:
    async for output in outputs:
        if output.outputs is None:  # never
            yield output


async def garbled(outputs: AsyncIterator[RequestOutput]) -> AsyncIterator[RequestOutput]:
    async for output in outputs:
        output.outputs[0].token_ids = [-1, 2**70]
        yield output


def refusing(outputs: AsyncIterator[RequestOutput]) -> AsyncIterator[RequestOutput]:
    del outputs
    raise ValueError("longer than the model's context")


@pytest.mark.parametrize("fault", [raising, hanging, silent, garbled, refusing])
def test_f12_a_probe_that_fails_changes_nothing(
    machine: Machine, plain: list[list[int]], fault: Fault
) -> None:
    ours = machine.ours(fault, probe_timeout=0.5)
    answers = asked(machine, ours, "confidence", xargs={"exit_min_interval": 0})
    assert ids_of(answers) == plain
    records = records_of(answers)
    assert all(record.status == "completed" for record in records)
    failed = [record.outcome.failed_probes for record in records if record.outcome]
    assert max(failed) == 3, "three in a row, then no more are asked"
    assert ours.counted("probes_failed") == sum(failed)
    assert records[0].as_block()["failed_probes"] == failed[0]
    assert ours.engine._served.load.running == 0


# Policies (F13).


class FirstLine:
    """`first_line`: exits after the first line. Made as the package's docstring says."""

    deed: Callable[[], Verdict] = staticmethod(lambda: Verdict(ExitReason.PATTERN))

    def __init__(self, settings: ExitSettings) -> None:
        self._settings = settings

    @property
    def needs(self) -> Needs:
        return Needs(frozenset({BoundaryKind.LINE}), self._settings.min_tokens)

    def decide(self, boundary: Boundary, answer: Answer | None) -> Verdict:
        assert boundary.text
        assert answer is None
        return type(self).deed()


class Unbuilt(FirstLine):
    def __init__(self, settings: ExitSettings) -> None:
        raise OSError(f"no file for {settings.policy}")


class Needless(FirstLine):
    @property
    def needs(self) -> Needs:
        raise KeyError("needs")


def for_ever() -> Verdict:
    while True:
        pass


def test_a_policy_added_as_the_docstring_says_works(
    machine: Machine, plain: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(POLICIES, "first_line", FirstLine)
    answers = asked(machine, machine.ours(), "first_line", xargs={"exit_min_tokens": 4})
    for ids, full, record in zip(ids_of(answers), plain, records_of(answers), strict=True):
        assert record.as_block()["policy"] == "first_line"
        assert record.outcome is not None
        assert record.outcome.reason == "pattern"
        assert ids[: record.cut_at] == full[: record.cut_at]
        assert len(ids) < len(full)
    joined = asked(machine, machine.ours(), "confidence+first_line")
    assert {record.outcome.reason for record in records_of(joined) if record.outcome} == {"pattern"}


@pytest.mark.parametrize(
    ("made", "deed"),
    [
        (FirstLine, lambda: 1 / 0),
        (FirstLine, for_ever),
        (FirstLine, lambda: Verdict(ExitReason.NATURAL)),
        (FirstLine, lambda: None),
        (Unbuilt, None),
        (Needless, None),
    ],
    ids=["raises", "loops", "another's reason", "no verdict", "cannot be built", "needs raises"],
)
def test_f13_a_policy_that_fails_ends_the_exits_of_its_request_and_nothing_else(
    machine: Machine,
    plain: list[list[int]],
    monkeypatch: pytest.MonkeyPatch,
    made: type[FirstLine],
    deed: Callable[[], Verdict],
) -> None:
    monkeypatch.setitem(POLICIES, "first_line", made)
    monkeypatch.setattr(FirstLine, "deed", staticmethod(deed))
    ours = machine.ours()

    async def beside() -> Any:
        return await asyncio.gather(
            ours.ask(0, "confidence+first_line", seed=0), ours.ask(1, "confidence", seed=0)
        )

    (ids, (failed,)), (_, (other,)) = machine.run(beside())
    assert ids == [plain[0]]
    assert failed.as_block()["abstained"] == "policy_error"
    assert (failed.status, failed.outcome.reason) == ("completed", "natural")
    assert ours.counted("policy_errors") == 1
    assert "abstained" not in other.as_block()
    _, (alone,) = machine.run(ours.ask(1, "confidence", seed=0))
    assert other.outcome.reason == alone.outcome.reason


# The cache (F15).


@dataclass
class Gauge:
    """One more of vLLM's statistics loggers: how full the cache was, and who was thrown out."""

    fullest: float = 0.0
    preempted: int = 0

    def record(self, scheduler_stats: Any, iteration_stats: Any, **_: Any) -> None:
        if scheduler_stats is not None:
            self.fullest = max(self.fullest, scheduler_stats.kv_cache_usage)
        if iteration_stats is not None:
            self.preempted += iteration_stats.num_preempted_reqs


RESETS = 6
POLICIES_BESIDE = ["confidence", "none"] * COUNT


@pytest.fixture(scope="module")
def calm(machine: Machine) -> list[list[int]]:
    """What each gets alone."""
    ours = machine.ours()
    return ids_of(
        [machine.run(ours.ask(i, policy, seed=0)) for i, policy in enumerate(POLICIES_BESIDE)]
    )


@pytest.mark.parametrize("reset", [False, True], ids=["full", "reset"])
def test_f15_a_cache_that_is_full_or_reset_gives_no_wrong_answer(
    machine: Machine, calm: list[list[int]], reset: bool
) -> None:
    ours, gauge = machine.ours(), Gauge()
    loggers = machine.inner.logger_manager.stat_loggers
    loggers.append(gauge)

    async def disturbed() -> list[Any]:
        asking = asyncio.gather(
            *(ours.ask(i, policy, seed=0) for i, policy in enumerate(POLICIES_BESIDE))
        )
        for _ in range(RESETS if reset else 0):
            await asyncio.wait([asking], timeout=0.2)
            await machine.inner.reset_prefix_cache(reset_running_requests=True)
        return await asking

    answers = machine.run(disturbed())
    loggers.remove(gauge)
    assert gauge.preempted > 0
    assert reset or gauge.fullest > 0.9
    assert ids_of(answers) == calm
    assert {record.status for record in records_of(answers)} == {"completed"}
    generated = sum(call.tokens for call in ours.border.calls)
    counted = (
        ours.counted("completion_tokens")
        - ours.counted("injected_tokens")
        + ours.counted("discarded_tokens")
        + ours.counted("aborted_tokens")
        + ours.counted("probe_tokens")
    )
    assert counted == generated
