"""Request parameters: what each one sets, which goes first, and what each refusal names."""

import dataclasses
from typing import Any

import pytest

from service.params import (
    EFFORT,
    FOREIGN,
    PARAMETERS,
    BadParameter,
    Effective,
    Parameter,
    effective_settings,
    read_body,
)
from stepgrpo_core import ExitSettings
from tests.support.service.controls import DEFAULTS, refused, settled

EXAMPLES: dict[str, Any] = {"switch": False, "effort": "low", "budget": 40}


def body_of(path: str, value: Any) -> dict[str, Any]:
    place, _, leaf = path.rpartition(".")
    return {place: {leaf: value}} if place else {leaf: value}


def merged(*parts: dict[str, Any]) -> dict[str, Any]:
    """Bodies in one; what stands in the same object joins there."""
    body: dict[str, Any] = {}
    for part in parts:
        for name, value in part.items():
            both = isinstance(value, dict) and name in body
            body[name] = body[name] | value if both else value
    return body


# Ours.


def test_policies_can_be_joined() -> None:
    settings = effective_settings(
        {"exit_policy": "confidence+budget+repetition"}, DEFAULTS
    ).settings
    assert settings.policy == "confidence+budget+repetition"


def test_nothing_asked_nothing_changed() -> None:
    assert effective_settings(None, DEFAULTS) == Effective(DEFAULTS)
    assert effective_settings({"kv_transfer_params": {}}, DEFAULTS) == Effective(DEFAULTS)
    assert settled({"model": "m", "n": 1, "messages": [{"role": "user"}]}) == Effective(DEFAULTS)


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
    effective = effective_settings(asked, DEFAULTS)
    for name, (field, _) in PARAMETERS.items():
        assert getattr(effective.settings, field) == asked[name]
        assert effective.sources[field] == f"vllm_xargs.{name}"


@pytest.mark.parametrize(
    ("xargs", "message"),
    [
        ({"exit_policy": "nonne"}, r"vllm_xargs.exit_policy='nonne'.*did you mean 'none'"),
        ({"exit_policy": None}, "exit_policy=None"),
        ({"exit_policy": "budget+budgt"}, "exit_policy='budget.budgt'.*did you mean 'budget'"),
        ({"exit_policy": "pattern"}, "exit_policy='pattern'.*pattern=None.*a regular expression"),
        (
            {"exit_policy": "pattern", "exit_pattern": r"(a)\1"},
            r"exit_pattern='\(a.*backreferences",
        ),
        ({"exit_policy": "pattern", "exit_pattern": 5}, "exit_pattern=5.*use a text"),
        ({"exit_pattern": "x"}, r"exit_pattern='x'.*exit_policy='confidence\+pattern'"),
        ({"exit_policy": "entropy", "exit_max_probes": 19}, "exit_max_probes=19.*20 checks"),
        ({"exit_policy": ["none"]}, "exit_policy"),
        ({"exit_threshold": 1.5}, "exit_threshold=1.5.*0 to 1"),
        ({"exit_threshold": float("nan")}, "exit_threshold=nan"),
        ({"exit_threshold": True}, "exit_threshold=True"),
        ({"exit_max_probes": -1}, "exit_max_probes=-1.*0 or more"),
        ({"exit_max_steps": 0, "exit_policy": "budget"}, "exit_max_steps=0.*use 1 or more"),
        ({"exit_max_steps": 3, "exit_policy": "none"}, "exit_max_steps=3.*exit_policy='none'"),
        ({"exit_shadow": "yes"}, "exit_shadow='yes'.*true or false"),
        ({"exit_polcy": "none"}, r"exit_polcy='none'.*did you mean .*'exit_policy'"),
        ({"Exit_Threshold": 0.9}, "did you mean .*'exit_threshold'"),
        ({"thinking_budget": 7}, "vllm_xargs.thinking_budget=7.*pass it as .*'thinking_budget'"),
        ({"exit_policy": "x" * 5000}, r"x\.\.\. is invalid"),
    ],
)
def test_refusals_name_parameter_value_and_remedy(xargs: Any, message: str) -> None:
    with pytest.raises(BadParameter, match=message):
        effective_settings(xargs, DEFAULTS)


# Everybody's: each row, and each value it refuses.


@pytest.mark.parametrize("row", FOREIGN, ids=lambda row: row.path)
def test_every_row_comes_to_a_real_bound(row: Parameter) -> None:
    value = "disabled" if row.path == "thinking.type" else EXAMPLES[row.sets]
    effective = settled(body_of(row.path, value))
    bound = {"switch": 0, "effort": 200, "budget": 40}[row.sets]
    assert effective.settings.budget_tokens == bound
    assert effective.settings.policy == ("budget" if bound == 0 else "confidence+budget")
    assert effective.as_block()["from"] == {"policy": row.path, "budget_tokens": row.path}
    assert settled(body_of(row.path, None)) == Effective(DEFAULTS)  # null is left out


@pytest.mark.parametrize("row", FOREIGN, ids=lambda row: row.path)
@pytest.mark.parametrize("value", ["much", -2, 1.5, [1], {}])
def test_every_row_refuses_what_it_cannot_read_by_its_path(row: Parameter, value: Any) -> None:
    error = refused(body_of(row.path, value))
    assert (error.parameter, error.value) == (row.path, value)
    assert "use " in str(error)


@pytest.mark.parametrize("row", [r for r in FOREIGN if r.sets == "budget"], ids=lambda r: r.path)
def test_minus_one_is_no_limit_also_where_the_server_has_one(row: Parameter) -> None:
    defaults = ExitSettings(policy="budget", budget_tokens=70)
    effective = settled(body_of(row.path, -1), defaults)
    assert effective.settings.budget_tokens is None
    assert effective.sources == {"budget_tokens": row.path}


@pytest.mark.parametrize(("effort", "worth"), EFFORT.items())
def test_every_effort_is_its_share_of_the_limit(effort: str, worth: float | None) -> None:
    tokens = settled({"reasoning_effort": effort}, limit=10_000).settings.budget_tokens
    assert tokens == (None if worth is None else min(int(worth * 10_000), 9_030))


def test_an_operators_table_may_hold_tokens() -> None:
    asked = read_body({"reasoning_effort": "low"})
    table = {**EFFORT, "low": 123}
    assert effective_settings(None, DEFAULTS, asked, limit=9999, effort=table).settings == (
        dataclasses.replace(DEFAULTS, policy="confidence+budget", budget_tokens=123)
    )


# Which goes first.


@pytest.mark.parametrize(
    ("body", "tokens", "source"),
    [
        ({"reasoning_effort": "low", "thinking_budget": 40}, 40, "thinking_budget"),
        (
            {"thinking_budget": 40, "vllm_xargs": {"exit_budget_tokens": 50}},
            50,
            "vllm_xargs.exit_budget_tokens",
        ),
        (
            {"reasoning_effort": "low", "vllm_xargs": {"exit_budget_tokens": 50}},
            50,
            "vllm_xargs.exit_budget_tokens",
        ),
        ({"reasoning": {"effort": "low", "enabled": True}}, 200, "reasoning.effort"),
        ({"reasoning_effort": "high", "thinking_budget": -1}, None, "thinking_budget"),
        ({"thinking_budget": 9, "thinking": {"budget_tokens": 9, "type": "enabled"}}, 9, None),
    ],
)
def test_explicit_goes_before_implied(body: Any, tokens: int | None, source: str | None) -> None:
    effective = settled(body, ExitSettings(policy="budget", budget_tokens=30))
    assert effective.settings.budget_tokens == tokens
    assert source in (None, effective.sources["budget_tokens"])


def test_a_bound_joins_the_policy_or_becomes_it() -> None:
    budget = {"thinking_budget": 40}
    assert settled(budget, ExitSettings()).settings.policy == "budget"
    assert settled(budget, ExitSettings("confidence+budget")).settings.policy == "confidence+budget"
    named = settled(budget | {"vllm_xargs": {"exit_policy": "margin"}})
    assert named.settings.policy == "margin+budget"
    steps = settled({"vllm_xargs": {"exit_max_steps": 3}})
    assert (steps.settings.policy, steps.settings.max_steps) == ("confidence+budget", 3)


def test_what_a_request_asks_for_is_real_also_on_a_server_that_only_watches() -> None:
    watching = dataclasses.replace(DEFAULTS, shadow=True)
    settings = settled({"thinking_budget": 40}, watching).settings
    assert (settings.policy, settings.shadow) == ("budget", False)
    assert settled({}, watching).settings == watching


def test_an_effort_yields_to_what_is_said_of_the_policy() -> None:
    for xargs in ({"exit_policy": "none"}, {"exit_shadow": True}):
        effective = settled({"reasoning_effort": "low", "vllm_xargs": xargs})
        assert effective.settings.budget_tokens is None
        assert "budget" not in effective.settings.policy


def test_a_budget_of_ours_can_be_watched_in_shadow_mode() -> None:
    settings = settled({"vllm_xargs": {"exit_shadow": True, "exit_budget_tokens": 40}}).settings
    assert (settings.policy, settings.budget_tokens, settings.shadow) == (
        "confidence+budget",
        40,
        True,
    )


CONTRADICTIONS = [
    ({"thinking_budget": 40}, {"thinking_token_budget": 50}),
    ({"reasoning_effort": "low"}, {"reasoning": {"effort": "high"}}),
    ({"enable_thinking": True}, {"chat_template_kwargs": {"enable_thinking": False}}),
    ({"enable_thinking": False}, {"thinking_budget": 40}),
    ({"enable_thinking": True}, {"thinking_budget": 0}),
    ({"enable_thinking": True}, {"reasoning_effort": "none"}),
    ({"enable_thinking": False}, {"reasoning_effort": "low"}),
    ({"reasoning_effort": "none"}, {"thinking_budget": 40}),
    ({"reasoning_effort": "none"}, {"thinking_budget": -1}),
    ({"enable_thinking": False}, {"vllm_xargs": {"exit_budget_tokens": 40}}),
    ({"thinking_budget": 40}, {"vllm_xargs": {"exit_policy": "none"}}),
    ({"thinking_budget": 40}, {"vllm_xargs": {"exit_shadow": True}}),
]


def name_of(body: dict[str, Any]) -> str:
    ((name, value),) = body.items()
    return f"{name}.{next(iter(value))}" if isinstance(value, dict) else name


@pytest.mark.parametrize(("one", "other"), CONTRADICTIONS)
def test_two_that_contradict_each_other_are_both_named(one: Any, other: Any) -> None:
    for body in (merged(one, other), merged(other, one)):
        error = refused(body)
        assert error.parameter in (name_of(one), name_of(other))
        assert name_of(one) in str(error)
        assert name_of(other) in str(error)
        assert "leave one of them out" in str(error)
