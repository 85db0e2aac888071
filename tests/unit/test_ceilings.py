"""What an operator allows, against what requests ask for."""

import math
from typing import Any

import pytest

from service.params import BadParameter, effective_settings
from service.params.limits import ProbeLimits, clamp_to_limits
from stepgrpo_core import ExitSettings, InvalidSetting

HOSTILE = ProbeLimits(limit_probes=16, limit_interval=64, limit_share=0.15)
EAGER = ExitSettings(policy="confidence", max_probes=99, min_interval=0)


def asked(**xargs: object) -> ExitSettings:
    effective = effective_settings({"exit_policy": "confidence", **xargs}, ExitSettings())
    return clamp_to_limits(effective.settings, HOSTILE, effective.sources)


def test_what_the_server_set_is_lowered() -> None:
    found = clamp_to_limits(EAGER, HOSTILE)
    assert (found.max_probes, found.min_interval, found.probe_share) == (16, 64, 0.15)
    assert asked() == clamp_to_limits(ExitSettings(policy="confidence"), HOSTILE)


def test_what_is_less_stays() -> None:
    modest = ExitSettings(policy="confidence", max_probes=3, min_interval=99, probe_share=0.01)
    assert clamp_to_limits(modest, HOSTILE) == modest
    assert asked(exit_max_probes=16, exit_min_interval=64).max_probes == 16


@pytest.mark.parametrize(
    ("xargs", "message"),
    [
        ({"exit_max_probes": 17}, "vllm_xargs.exit_max_probes=17 .* at most 16 a sequence"),
        ({"exit_min_interval": 63}, "vllm_xargs.exit_min_interval=63 .* at least 64 tokens apart"),
        ({"exit_policy": "entropy", "exit_max_probes": 16}, "exit_max_probes"),
    ],
)
def test_what_a_request_asks_beyond_them_is_refused(xargs: dict[str, Any], message: str) -> None:
    with pytest.raises(BadParameter, match=message):
        asked(**xargs)


def test_policies_share_them() -> None:
    found = clamp_to_limits(ExitSettings(policy="confidence+margin+budget", max_probes=20), HOSTILE)
    assert (found.max_probes, found.probe_share) == (8, 0.075)
    many = ExitSettings(policy="confidence+margin")
    assert clamp_to_limits(many, ProbeLimits(limit_probes=1)).max_probes == 1


def test_a_policy_that_cannot_act_within_them_is_refused() -> None:
    with pytest.raises(BadParameter, match=r"entropy.*this server allows 16"):
        clamp_to_limits(ExitSettings(policy="entropy", max_probes=20), HOSTILE)


def test_policies_that_ask_nothing_are_not_concerned() -> None:
    budget = ExitSettings(policy="budget+repetition", max_probes=99, min_interval=0)
    assert clamp_to_limits(budget, HOSTILE) == budget
    assert clamp_to_limits(ExitSettings(), HOSTILE) == ExitSettings()


def test_as_a_rule_the_defaults_fit() -> None:
    for policy in ("confidence", "confidence+verifier", "consistency"):
        settings = ExitSettings(policy=policy)
        assert clamp_to_limits(settings, ProbeLimits()) == settings
    assert (
        clamp_to_limits(ExitSettings(policy="entropy", max_probes=20), ProbeLimits()).max_probes
        == 20
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"limit_probes": 0},
        {"limit_interval": -1},
        {"limit_share": -0.1},
        {"limit_share": 1.1},
        {"limit_share": math.nan},
        {"probe_timeout": 0},
        {"probe_timeout": math.inf},
    ],
)
def test_limits_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidSetting, match=next(iter(wrong))):
        ProbeLimits(**wrong)
