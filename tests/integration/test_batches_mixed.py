"""Nobody exits, waits or answers otherwise because of another: each request of a mixed batch gets
what it gets alone."""

import asyncio
from typing import Any

import pytest

from tests.support.engines import CAPACITY, Machine, Ours

pytestmark = pytest.mark.integration

OFTEN = {"exit_min_interval": 0}
MIXED: list[dict[str, Any]] = [
    {"policy": "none"},
    {"policy": "confidence"},
    {"policy": "confidence", "n": 3},
    {"policy": "confidence", "max_tokens": 40},
    {"policy": "confidence", "xargs": OFTEN | {"exit_threshold": 0.5}},
    {"policy": "consistency"},
    {"policy": "verifier", "n": 2},
    {"policy": "sufficiency"},
    {"policy": "margin", "xargs": OFTEN},
    {"policy": "entropy", "xargs": {"exit_max_probes": 20}},
    {"policy": "budget", "xargs": {"exit_budget_tokens": 30}, "n": 2},
    {"policy": "budget", "xargs": {"exit_max_steps": 1}},
    {"policy": "repetition"},
    {"policy": "confidence+budget", "xargs": {"exit_budget_tokens": 60}},
    {"policy": "confidence", "xargs": {"exit_shadow": True}},
    {"policy": "none", "n": 2, "max_tokens": 25},
]


async def told(ours: Ours, number: int) -> list[tuple[list[int], str, int]]:
    """Tokens, exit reason and steps of each sequence."""
    options = {"temperature": 0.7, "seed": 100 + number, "index": number} | MIXED[number]
    ids, records = await ours.ask(**options)
    return [
        (each, str(record.outcome.reason), record.outcome.steps)
        for each, record in zip(ids, records, strict=True)
        if record.outcome
    ]


def test_each_request_of_a_mixed_batch_gets_what_it_gets_alone(machine: Machine) -> None:
    ours = machine.ours()
    numbers = range(len(MIXED))
    alone = [machine.run(told(ours, number)) for number in numbers]

    async def together() -> list[Any]:
        return await asyncio.gather(*(told(ours, number) for number in numbers))

    company = machine.run(together())
    for number in numbers:
        assert company[number] == alone[number], MIXED[number]
    reasons = {reason for sequences in alone for _, reason, _ in sequences}
    assert reasons >= {"natural", "confident", "budget"}
    assert sum(map(len, alone)) > CAPACITY, "they do not even fit at once"


@pytest.mark.slow
def test_a_request_with_logprob_token_ids_leaves_the_probes_of_others_alone(
    machine: Machine,
) -> None:
    """vLLM's V1 sampler would give the whole batch the log-probs of those ids."""
    ours = machine.ours(policy="margin", settings={"min_interval": 0, "margin_threshold": 100.0})

    def probed() -> Any:
        return ours.ask(0, None, seed=1)

    async def beside() -> Any:
        asks = ours.ask(1, "none", logprob_token_ids=[5, 6, 7], ignore_eos=True, max_tokens=700)
        asking = asyncio.create_task(asks)
        found = await probed()
        assert not asking.done(), "it did not run as long as the probes"
        asking.cancel()
        await asyncio.wait([asking])
        return found

    (alone_ids, (alone,)), (ids, (record,)) = machine.run(probed()), machine.run(beside())
    assert alone.cut_at is not None
    assert (ids, record.cut_at) == (alone_ids, alone.cut_at)
