"""The holdout: which requests take part, what is withheld from them, and where they are entered."""

import contextlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from vllm.sampling_params import SamplingParams

from service.engine.request import EngineRequest
from service.params import Effective
from service.records.reasons import Abstained
from service.records.sequence import SequenceRecord
from service.savings.holdout import is_eligible
from service.savings.measurement import SavingsMeasurement
from service.savings.plan import Plan
from service.savings.state.series import ArmName, Contrast, holdout_series
from service.savings.state.store import SumStore
from stepgrpo_core import ExitSettings
from stepgrpo_core.savings.holdout import Arm

SAME, BASE = Plan(holdout=1), Plan(holdout=1, holdout_base="base")
HELD, SERVED = Arm(control=True, group=3), Arm(control=False, group=3)
PROMPT = {"type": "token", "prompt_token_ids": [1], "cache_salt": "theirs"}


def request(adapter: str | None = None) -> EngineRequest:
    options: dict[str, Any] = {"priority": 5, "data_parallel_rank": 1}
    if adapter is not None:
        options["lora_request"] = SimpleNamespace(lora_name=adapter)
    return EngineRequest("chatcmpl-1", PROMPT, SamplingParams(), options)


def settings(policy: str, **more: Any) -> ExitSettings:
    return ExitSettings(policy=policy, **more)


@pytest.mark.parametrize(
    ("plan", "adapter", "effective", "part"),
    [
        (SAME, None, Effective(settings("confidence")), True),
        (SAME, "tuned", Effective(settings("confidence")), True),
        (SAME, "tuned", Effective(settings("none")), False),
        (BASE, None, Effective(settings("none")), False),
        (BASE, "tuned", Effective(settings("none")), True),
        (BASE, "tuned", Effective(settings("confidence")), True),
        (BASE, "tuned", Effective(settings("confidence", shadow=True)), False),
        (BASE, "tuned", Effective(settings("none"), {"policy": "exit_policy"}), False),
        (BASE, "tuned", Effective(settings("budget"), {"budget_tokens": "effort"}), False),
        # It may have named the policy that stepped aside.
        (BASE, "tuned", Effective(settings("none"), abstained=Abstained.TOOLS), False),
    ],
)
def test_who_is_eligible(plan: Plan, adapter: str | None, effective: Effective, part: bool) -> None:
    assert is_eligible(plan, request(adapter), effective) is part


Make = Callable[[Plan], SavingsMeasurement]


@pytest.fixture
def evidence() -> Iterator[Make]:
    with contextlib.ExitStack() as made:

        def make(plan: Plan) -> SavingsMeasurement:
            return made.enter_context(contextlib.closing(SavingsMeasurement(plan, SumStore())))

        yield make


def test_only_conversations_that_take_part_are_dealt(evidence: Make) -> None:
    of_base = evidence(BASE)
    effective = Effective(settings("none"))
    assert of_base.assign_arm(request("tuned"), effective, b"hello") is not None
    assert of_base.assign_arm(request("tuned"), effective, None) is None
    assert of_base.assign_arm(request(), effective, b"hello") is None
    assert evidence(Plan()).assign_arm(request("tuned"), effective, b"hello") is None


@pytest.mark.parametrize(
    ("plan", "adapter", "by"),
    [(SAME, "tuned", "tuned"), (BASE, "tuned", None), (BASE, None, None)],
)
def test_the_base_serves_what_is_held_out_of_an_adapter(
    evidence: Make, plan: Plan, adapter: str | None, by: str | None
) -> None:
    asked = request(adapter)
    served, withheld = evidence(plan).as_control(asked, settings("confidence", min_tokens=7))
    assert withheld == settings("none", min_tokens=7)
    assert served.adapter == by
    assert asked.adapter == adapter
    # Salt, priority and rank are those of the request.
    assert (served.request_id, served.prompt) == (asked.request_id, PROMPT)
    kept = {name: value for name, value in served.options.items() if name != "lora_request"}
    assert kept == {"priority": 5, "data_parallel_rank": 1}


def record(adapter: str | None, place: Arm | None = None) -> SequenceRecord:
    name = adapter or "base"
    made = SequenceRecord(0, name, "confidence", prompt_tokens=1, adapter=adapter, arm=place)
    made.generated_tokens, made.probe_tokens = 50, 6
    return made


@pytest.mark.parametrize(
    ("plan", "adapter", "compared"),
    [(SAME, "tuned", "exit"), (BASE, "tuned", "training"), (BASE, None, "exit")],
)
@pytest.mark.parametrize(("place", "side"), [(HELD, "held"), (SERVED, "exited")])
def test_each_comparison_has_sums_of_its_own(
    evidence: Make,
    plan: Plan,
    adapter: str | None,
    compared: Contrast,
    place: Arm,
    side: ArmName,
) -> None:
    shown = evidence(plan)
    made = record(adapter, place)
    shown.ended(request(adapter), made, None)
    found = {
        key.series: sums["tokens"]
        for prefix in ("holdout/", "training/holdout/")
        for key, sums in shown.store.read(prefix).items()
    }
    assert found == {
        holdout_series(side, "completion", compared): 50,
        holdout_series(side, "engine", compared): 56,
    }


def test_a_pair_never_compares_the_base_with_itself(evidence: Make) -> None:
    shown = evidence(Plan(holdout=1, holdout_base="base", pairs=1, pairs_base="base"))
    shown._pairs = SimpleNamespace()  # type: ignore[assignment] # as once it has started
    assert shown._base_may_repeat(record("tuned"))
    assert shown._base_may_repeat(record("tuned", SERVED))
    assert not shown._base_may_repeat(record("tuned", HELD))
    assert not shown._base_may_repeat(record(None))
    shown.plan = Plan(holdout=1, pairs=1, pairs_base="base")  # held out, but served by itself
    assert shown._base_may_repeat(record("tuned", HELD))
