"""Probes yield: to the share of the engine they may take, and to whoever waits."""

import asyncio
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest

from service.records.reasons import Refusal
from tests.support.engines import CAPACITY, Machine, Ours

pytestmark = [pytest.mark.integration, pytest.mark.slow]

SHARE = 0.25
SAME = [0] * (CAPACITY // 2)  # in step, so that all want their probes at once
NEVER = {"exit_threshold": 1.0}


def asked_together(
    machine: Machine, ours: Ours, indices: Iterable[int], **options: Any
) -> list[Any]:
    async def together() -> list[Any]:
        return await asyncio.gather(*(ours.ask(i, **options) for i in indices))

    return machine.run(together())  # type: ignore[no-any-return]


def most_probes(ours: Ours) -> int:
    return max(1 + call.probes_beside for call in ours.border.probes)


def test_probes_are_a_share_of_the_running_sequences(machine: Machine) -> None:
    free, capped = machine.ours(probe_load=1.0), machine.ours(probe_load=SHARE)
    for ours in (free, capped):
        answers = asked_together(machine, ours, SAME, xargs=NEVER)
        assert all(records[0].outcome.reason == "natural" for _, records in answers)
        assert ours.engine._served.load.running == 0
    assert most_probes(free) > SHARE * CAPACITY, "there was no load"
    assert most_probes(capped) <= SHARE * CAPACITY


def test_a_refused_probe_is_counted_and_no_failure(machine: Machine) -> None:
    ours = machine.ours(probe_load=SHARE)
    answers = asked_together(machine, ours, SAME, xargs=NEVER)
    records = [records[0] for _, records in answers]
    refused = sum(record.refused_probes.total() for record in records)
    assert refused == ours.counted("probes_refused") > 0
    assert sum(record.as_block().get("refused_probes", 0) for record in records) == refused
    assert sum(record.outcome.failed_probes for record in records) == 0
    assert sum(record.outcome.probes for record in records) == len(ours.border.probes) > 0
    assert all(record.status == "completed" for record in records)


def test_no_probe_starts_while_requests_queue(machine: Machine) -> None:
    ours = machine.ours(probe_load=1.0)
    answers = asked_together(machine, ours, range(3 * CAPACITY))
    assert all(call.beside < CAPACITY for call in ours.border.probes)
    refused = sum((records[0].refused_probes for _, records in answers), start=Counter[Refusal]())
    assert refused[Refusal.QUEUE] > 0
    assert ours.engine._served.load.waiting == 0


def test_seeded_requests_decide_on_tokens_alone(machine: Machine) -> None:
    ours = machine.ours(probe_load=SHARE)
    sampling: dict[str, Any] = {"temperature": 0.8, "seed": 3}
    alone = [machine.run(ours.ask(i, **sampling)) for i in range(2 * CAPACITY)]
    company = asked_together(machine, ours, range(2 * CAPACITY), **sampling)
    assert [ids for ids, _ in company] == [ids for ids, _ in alone]
    reasons = [[record.outcome.reason for record in records] for _, records in company]
    assert reasons == [[record.outcome.reason for record in records] for _, records in alone]
    assert ["confident"] in reasons
    assert ours.counted("probes_refused") == 0
