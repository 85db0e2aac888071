"""Probes at the border to vLLM: what they inherit, and that they end with their request."""

import asyncio

import pytest

from tests.support.engines import ADAPTER, Machine

pytestmark = pytest.mark.integration

NEVER = {"exit_threshold": 1.0}


@pytest.mark.parametrize("policy", ["confidence", "verifier", "margin"])
def test_tenants_share_no_prefix_and_probes_are_their_tenants(
    machine: Machine, policy: str
) -> None:
    ours = machine.ours(probe_load=1.0)
    for salt in ("one", "two"):
        before = len(ours.border.calls)
        machine.run(ours.ask(1, policy, salt=f"{salt} {policy}", seed=0, xargs=NEVER))
        first, *others = ours.border.calls[before:]
        assert first.cached_tokens == 0, "the other tenant's prefix"
        assert others
        assert {call.prompt["cache_salt"] for call in others} == {f"{salt} {policy}"}
        if policy != "verifier":  # whose prompt is a conversation of its own
            assert all(probe.cached_tokens for probe in others), "not in the parent's prefix"


def test_probes_inherit_adapter_rank_and_priority(machine: Machine) -> None:
    ours = machine.ours(probe_load=1.0)
    options = {"lora_request": ADAPTER, "priority": 3, "data_parallel_rank": 0}
    xargs = {"exit_budget_tokens": 24, "exit_min_interval": 0}
    _, (record,) = machine.run(ours.ask(1, "margin+budget", options=options, seed=0, xargs=xargs))
    assert record.model_name == "demo-step-grpo"
    answers = [call for call in ours.border.calls if not call.is_probe]
    assert record.outcome.reason in ("budget", "margin")
    assert len(answers) == 2
    assert ours.border.probes
    for call in ours.border.calls:
        assert call.options["lora_request"] is ADAPTER
        assert call.options["data_parallel_rank"] == 0
        assert call.options["priority"] == (4 if call.is_probe else 3)


def test_probes_are_cancelled_with_their_request(machine: Machine) -> None:
    ours = machine.ours(probe_load=1.0)

    async def leave() -> None:
        task = asyncio.create_task(ours.ask(1, "consistency", xargs={"exit_min_tokens": 8}))
        await ours.border.probing.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.gather(*ours.engine._closing)
        assert ours.engine._served.load.running == 0
        assert all(call.ended for call in ours.border.calls)
        assert machine.inner.get_num_unfinished_requests() == 0

    machine.run(leave())
    assert ours.counted("requests") == ours.counted("requests_started") == 1
    generated = sum(call.tokens for call in ours.border.calls)
    parts = ours.counted("completion_tokens") + ours.counted("aborted_tokens")
    assert parts + ours.counted("probe_tokens") == generated
