"""Request parameters: what is honoured, and what each refusal names."""

import pytest

from service.controls import PARAMETERS, BadParameter, effective_settings, misplaced_parameter
from stepgrpo_core import ExitSettings

DEFAULTS = ExitSettings(policy="confidence", threshold=0.8)


def test_policies_can_be_joined() -> None:
    settings = effective_settings({"exit_policy": "confidence+budget+repetition"}, DEFAULTS)
    assert settings.policy == "confidence+budget+repetition"


def test_nothing_asked_nothing_changed() -> None:
    assert effective_settings(None, DEFAULTS) == DEFAULTS
    assert effective_settings({"kv_transfer_params": {}}, DEFAULTS) == DEFAULTS


def test_each_parameter_sets_its_field() -> None:
    asked = {
        "exit_policy": "confidence+budget+pattern",
        "exit_threshold": 1,
        "exit_max_probes": 3,
        "exit_min_tokens": 5,
        "exit_min_interval": 0,
        "exit_shadow": True,
        "exit_budget_tokens": 100,
        "exit_max_steps": 4,
        "exit_pattern": r"Done\.",
    }
    assert set(asked) == set(PARAMETERS)
    settings = effective_settings(asked, DEFAULTS)
    for name, (field, _) in PARAMETERS.items():
        assert getattr(settings, field) == asked[name]


@pytest.mark.parametrize(
    ("xargs", "message"),
    [
        ({"exit_policy": "nonne"}, r"vllm_xargs.exit_policy='nonne'.*did you mean 'none'"),
        ({"exit_policy": None}, "exit_policy=None"),
        ({"exit_policy": "budget+budgt"}, "exit_policy='budget.budgt'.*did you mean 'budget'"),
        ({"exit_policy": "pattern"}, "exit_pattern=None.*needs a regular expression"),
        (
            {"exit_policy": "pattern", "exit_pattern": r"(a)\1"},
            r"exit_pattern='\(a.*backreferences",
        ),
        ({"exit_policy": "pattern", "exit_pattern": 5}, "exit_pattern=5.*use a text"),
        ({"exit_pattern": "x"}, r"exit_pattern='x'.*exit_policy='confidence\+pattern'"),
        ({"exit_policy": "entropy"}, "exit_max_probes=10.*20 checks"),
        ({"exit_policy": ["none"]}, "exit_policy"),
        ({"exit_threshold": 1.5}, "exit_threshold=1.5.*0 to 1"),
        ({"exit_threshold": "0.9"}, "exit_threshold='0.9'"),
        ({"exit_threshold": float("nan")}, "exit_threshold=nan"),
        ({"exit_threshold": True}, "exit_threshold=True"),
        ({"exit_max_probes": -1}, "exit_max_probes=-1.*0 or more"),
        ({"exit_min_tokens": 1.5}, "exit_min_tokens=1.5"),
        ({"exit_max_steps": 0, "exit_policy": "budget"}, "exit_max_steps=0.*use 1 or more"),
        ({"exit_max_steps": 3}, r"exit_max_steps=3.*exit_policy='confidence\+budget'"),
        ({"exit_budget_tokens": 9, "exit_policy": "none"}, "add exit_policy='budget'"),
        ({"exit_shadow": "yes"}, "exit_shadow='yes'.*true or false"),
        ({"exit_polcy": "none"}, "exit_polcy='none'.*did you mean 'exit_policy'"),
        ({"Exit_Threshold": 0.9}, "did you mean 'exit_threshold'"),
        ({"exit_whatever": 1}, "did you mean 'exit_"),
    ],
)
def test_refusals_name_parameter_value_and_remedy(xargs, message) -> None:
    with pytest.raises(BadParameter, match=message):
        effective_settings(xargs, DEFAULTS)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"exit_policy": "none"}, "exit_policy='none'.*'vllm_xargs': {'exit_policy'"),
        ({"exit_polcy": "none"}, "'vllm_xargs': {'exit_policy'"),
        ({"vllm_xarg": {"exit_policy": "none"}}, "did you mean 'vllm_xargs'"),
    ],
)
def test_misplaced_parameters_are_told_where_they_belong(body, message) -> None:
    refusal = misplaced_parameter({"model": "m", "messages": [], **body})
    assert refusal is not None
    with pytest.raises(BadParameter, match=message):
        raise refusal


def test_a_good_body_is_not_refused() -> None:
    assert misplaced_parameter({"model": "m", "n": 1, "vllm_xargs": {"exit_policy": "x"}}) is None
