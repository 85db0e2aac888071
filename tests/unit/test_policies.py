"""The registry of exit policies, and their settings."""

import math

import pytest

from stepgrpo_core import POLICIES, ExitSettings, InvalidSetting, build_policy
from stepgrpo_core.policies import Boundary, Trial

BOUNDARY = Boundary(position=5, steps=1, reasoning_tokens=4)
SURE = Trial((1, 2, 3), (-9.0, -0.01, -0.02), ended=True)


def test_every_policy_can_be_built_and_asks_or_never_exits() -> None:
    for name in POLICIES:
        policy = build_policy(ExitSettings(policy=name))
        assert policy.question is not None or policy.decide(BOUNDARY, SURE).reason is None


def test_an_unknown_policy_names_the_known_ones() -> None:
    with pytest.raises(InvalidSetting, match="confidence, none"):
        build_policy(ExitSettings(policy="nonne"))


def test_confidence_follows_its_settings() -> None:
    decide = build_policy(ExitSettings(policy="confidence")).decide
    verdict = decide(BOUNDARY, SURE)
    assert verdict.reason == "confident"
    assert verdict.confidence == pytest.approx(math.exp(-0.015))
    open_trial = Trial(SURE.ids, SURE.logprobs, ended=False)
    assert decide(BOUNDARY, open_trial).confidence == 0.0
    lenient = build_policy(ExitSettings(policy="confidence", require_end=False)).decide
    assert lenient(BOUNDARY, open_trial).reason == "confident"
    first = build_policy(ExitSettings(policy="confidence", skip_first=False)).decide
    assert first(BOUNDARY, SURE).reason is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("threshold", 1.01),
        ("threshold", -0.1),
        ("threshold", math.nan),
        ("max_probes", -1),
        ("min_tokens", -1),
        ("min_interval", -1),
        ("answer_reserve", -1),
        ("probe_max_tokens", 0),
    ],
)
def test_settings_out_of_range_name_key_value_and_remedy(name: str, value: float) -> None:
    with pytest.raises(InvalidSetting, match=f"{name}=.*use ") as caught:
        ExitSettings(**{name: value})
    assert (caught.value.name, caught.value.remedy[:3]) == (name, "use")
