"""Floods of markers (F14): what they may cost, counted, and that others do not pay."""

import asyncio
import itertools
from typing import Any

import pytest
from vllm.exceptions import VLLMValidationError

from service.params import BadParameter
from tests.support.engines import CAPACITY, PROMPTS, Machine, Ours
from tests.support.models import TOKENIZER

pytestmark = [pytest.mark.integration, pytest.mark.slow]

WORDS = TOKENIZER.convert_tokens_to_ids(["Wait"]) + TOKENIZER.encode(",\n")
THINKING = [*PROMPTS[0], *TOKENIZER.encode("<think>\n")]
SPENT, APART, SHARE, LOAD = 4, 24, 0.5, 0.25
FLOODS, LENGTH = 5, 300


async def flood(ours: Ours, number: int, **options: Any) -> None:
    """A client whose model writes markers and nothing else, and who asks for a probe at each."""
    ids, (record,) = await ours.ask(
        name=f"flood{number}",
        prompt_ids=THINKING,
        allowed_token_ids=WORDS,
        temperature=1.0,
        max_tokens=LENGTH,
        xargs={"exit_threshold": 1.0},
        **options,
    )
    assert (len(ids[0]), record.status) == (LENGTH, "completed")


def flooded(machine: Machine, ours: Ours, **options: Any) -> list[Any]:
    """Floods, and innocent requests amid them; what the innocent got."""

    async def together() -> list[Any]:
        floods = [asyncio.create_task(flood(ours, n, **options)) for n in range(FLOODS)]
        innocent = [ours.ask(n, seed=n, temperature=0.7, name=f"innocent{n}") for n in range(3)]
        answers = await asyncio.gather(*innocent)
        await asyncio.gather(*floods)
        return answers

    return machine.run(together())  # type: ignore[no-any-return]


def positions(ours: Ours, number: int) -> list[int]:
    """Where in its thinking a flood got its probes."""
    induced = len(TOKENIZER.encode("\n**Final Answer**\n\\boxed"))
    return [
        len(call.prompt["prompt_token_ids"]) - len(THINKING) - induced
        for call in ours.border.probes
        if call.id.startswith(f"flood{number}-")
    ]


def test_f14_a_flood_of_markers_stays_within_the_caps(machine: Machine) -> None:
    limits: dict[str, Any] = {
        "limit_probes": SPENT,
        "limit_interval": APART,
        "limit_share": SHARE,
        "probe_load": LOAD,
    }
    ours = machine.ours(**limits)
    answers = flooded(machine, ours)
    probed = [positions(ours, number) for number in range(FLOODS)]
    assert any(probed)
    for places in probed:
        assert len(places) <= SPENT
        assert all(b - a >= APART for a, b in itertools.pairwise(places))
        for count, place in enumerate(places, start=1):
            assert count * 20 <= SHARE * place
    floods = [call for call in ours.border.probes if call.id.startswith("flood")]
    assert max(1 + call.probes_beside for call in floods) <= LOAD * CAPACITY
    alone = [machine.run(ours.ask(n, seed=n, temperature=0.7)) for n in range(3)]
    assert [ids for ids, _ in answers] == [ids for ids, _ in alone]


def test_seeds_lift_the_cap_of_load_but_no_other(machine: Machine) -> None:
    ours = machine.ours(limit_probes=SPENT, limit_interval=APART, probe_load=LOAD)
    flooded(machine, ours, seed=1)
    assert ours.counted("probes_refused") == 0
    for number in range(FLOODS):
        assert len(positions(ours, number)) == SPENT


def test_without_caps_it_is_a_flood(machine: Machine) -> None:
    ours = machine.ours(limit_probes=200, probe_load=1.0)
    machine.run(flood(ours, 0, seed=1))
    assert len(positions(ours, 0)) > SPENT


@pytest.mark.parametrize("name", ["exit_max_probes", "exit_min_interval"])
def test_no_request_asks_for_more(machine: Machine, name: str) -> None:
    ours = machine.ours(limit_probes=SPENT, limit_interval=APART)
    value = SPENT + 1 if name == "exit_max_probes" else APART - 1
    with pytest.raises(VLLMValidationError, match=f"{name}={value} is invalid") as caught:
        machine.run(ours.ask(xargs={name: value}))
    assert isinstance(caught.value.__cause__, BadParameter)
    assert ours.border.calls == []
