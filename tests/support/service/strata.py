"""Servers that share a state file under different settings, and their counts."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from vllm.sampling_params import SamplingParams

from service.engine.request import EngineRequest
from service.params.effort import EFFORT
from service.params.limits import ProbeLimits
from service.records.sequence import SequenceRecord
from service.savings.measurement import SavingsMeasurement
from service.savings.plan import Plan
from service.savings.state.contents import cell
from service.savings.state.store import Key, Sums, SumStore
from stepgrpo_core import ExitSettings

SETTINGS = ExitSettings(policy="confidence", threshold=0.95)
PLAN = Plan(holdout=0.5)


@contextlib.contextmanager
def serving(
    state: Path,
    plan: Plan = PLAN,
    settings: ExitSettings = SETTINGS,
    limits: ProbeLimits = ProbeLimits(),  # noqa: B008 - frozen
    facts: Mapping[str, Any] = {"max_model_len": 4096},
    weights: Mapping[str | None, str] = {None: "a"},
) -> Iterator[SavingsMeasurement]:
    """Yield the measurement of a server with these settings over a state file."""
    savings = SavingsMeasurement(dataclasses.replace(plan, state=state), SumStore(state), weights)
    savings.facts |= facts
    decider = SimpleNamespace(defaults=settings, limits=limits, effort=EFFORT, calibrated=None)
    savings.start(SimpleNamespace(writing=None), None, "demo", decider)  # type: ignore[arg-type]
    try:
        yield savings
    finally:
        savings.close()


def request(**lora: Any) -> EngineRequest:
    options = {"lora_request": SimpleNamespace(**lora)} if lora else {}
    return EngineRequest("chatcmpl-1", {"prompt_token_ids": [1]}, SamplingParams(), options)


def stratum(savings: SavingsMeasurement, model: str = "demo", **lora: Any) -> int:
    record = SequenceRecord(0, model, "confidence", prompt_tokens=1)
    savings.assign_stratum(request(**lora), [record])
    return record.stratum


CHANGES: dict[str, dict[str, Any]] = {
    "share": {"plan": Plan(holdout=0.05)},
    "share of pairs": {"plan": Plan(holdout=0.5, pairs=0.1)},
    "base of pairs": {"plan": Plan(holdout=0.5, pairs=0.1, pairs_base="base")},
    "base of the holdout": {"plan": Plan(holdout=0.5, holdout_base="demo")},
    "threshold": {"settings": dataclasses.replace(SETTINGS, threshold=0.9)},
    "policy": {"settings": dataclasses.replace(SETTINGS, policy="confidence+repetition")},
    "closing text": {"settings": dataclasses.replace(SETTINGS, closing_text="\nSo.\n</think>\n\n")},
    "inducing prompt": {"settings": dataclasses.replace(SETTINGS, inducing_prompt="Answer:")},
    "markers": {"settings": dataclasses.replace(SETTINGS, markers=("Hmm",))},
    "shadow": {"settings": dataclasses.replace(SETTINGS, shadow=True)},
    "load of probes": {"limits": ProbeLimits(probe_load=0.5)},
    "weights": {"weights": {None: "b"}},
    "length": {"facts": {"max_model_len": 2048}},
}


def in_stratum(sums: Mapping[Key, Sums], stratum: int) -> dict[Key, Sums]:
    return {key._replace(group=cell(stratum, key.group)): each for key, each in sums.items()}
