"""When a policy abstains, and what stays of it."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from service.params.eligibility import Facts, eligible, offers_tools, probe_specs
from service.records.reasons import Abstained
from stepgrpo_core import POLICIES, ExitSettings

ALL = "confidence+budget+margin+verifier"
DOCUMENTED = (Path(__file__).parents[2] / "docs" / "reference.md").read_text(encoding="utf-8")


def decided(policy: str, facts: Facts, **settings: object) -> tuple[str, Abstained | None]:
    asked = ExitSettings(policy=policy, max_probes=20, **settings)  # type: ignore[arg-type]
    return eligible(probe_specs(asked), facts)


def test_as_a_rule_every_policy_acts() -> None:
    for name in POLICIES:
        assert decided(name, Facts(), pattern="x") == (name, None)
    assert decided(ALL, Facts()) == (ALL, None)


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (Facts(thinks=False), Abstained.NO_THINKING_TOKENS),
        (Facts(closes=False), Abstained.COUNTS_ONLY),
        (Facts(has_ids=False), Abstained.NO_TOKEN_IDS),
        (Facts(cumulative=True), Abstained.CUMULATIVE_OUTPUT),
        (Facts(continues_thought=True), Abstained.CONTINUED_THINKING),
        (Facts(ignore_eos=True), Abstained.IGNORE_EOS),
        (Facts(prompt_logprobs=True), Abstained.PROMPT_LOGPROBS),
        (Facts(grammar=True), Abstained.GRAMMAR),
    ],
)
def test_what_rules_every_exit_out(facts: Facts, reason: Abstained) -> None:
    assert decided(ALL, facts) == decided("budget", facts) == ("none", reason)
    assert decided("none", facts) == ("none", None)  # nothing was asked for


@pytest.mark.parametrize(
    ("policy", "left"),
    [
        ("confidence", "none"),
        ("margin+entropy", "none"),
        (ALL, "budget"),
        ("repetition+confidence+pattern", "repetition+pattern"),
    ],
)
def test_without_prefix_caching_only_policies_that_ask_nothing_act(policy: str, left: str) -> None:
    found = decided(policy, Facts(prefix_caching=False), pattern="x")
    assert found == (left, Abstained.NO_PREFIX_CACHING)


@pytest.mark.parametrize("policy", ["budget", "repetition", "pattern", "budget+repetition"])
def test_policies_that_ask_nothing_need_no_prefix_caching(policy: str) -> None:
    assert decided(policy, Facts(prefix_caching=False), pattern="x") == (policy, None)


def test_a_judge_elsewhere_costs_this_server_no_prefix() -> None:
    found = decided("verifier", Facts(prefix_caching=False), verifier_url="http://judge:1")
    assert found == ("verifier", None)


def test_with_tools_no_trial_answer_is_induced() -> None:
    assert decided("confidence", Facts(tools=True)) == ("none", Abstained.TOOLS)
    assert decided("consistency+sufficiency", Facts(tools=True)) == ("none", Abstained.TOOLS)
    assert decided(ALL, Facts(tools=True)) == ("budget+margin", Abstained.TOOLS)
    assert decided("entropy+budget", Facts(tools=True)) == ("entropy+budget", None)


@pytest.mark.parametrize(
    ("body", "offered"),
    [
        ({}, False),
        ({"tools": []}, False),
        ({"tools": None}, False),
        ({"tools": [{}]}, True),
        ({"tools": [{}], "tool_choice": "auto"}, True),
        ({"tools": [{}], "tool_choice": "none"}, False),
        ({"tools": [{}], "tool_choice": {"type": "none"}}, False),
        ({"tools": [{}], "tool_choice": {"type": "tool", "name": "f"}}, True),
    ],
)
def test_tools_are_offered_when_the_answer_may_call_them(
    body: dict[str, Any], offered: bool
) -> None:
    assert offers_tools(body) is offered


OF_REQUESTS = set(Abstained) - {Abstained.POLICY_ERROR, Abstained.SWITCHED_OFF}


def test_every_fact_has_a_reason_and_every_reason_is_documented() -> None:
    assert len(dataclasses.fields(Facts)) == len(OF_REQUESTS)
    for reason in Abstained:
        assert f"| `{reason}` |" in DOCUMENTED
