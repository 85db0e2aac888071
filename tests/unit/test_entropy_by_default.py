"""Policy entropy works where nothing but its name is said, alone and joined to any other."""

import itertools
from pathlib import Path

import pytest

from service.config.layers import BadOption
from service.params import BadParameter, effective_settings
from service.params.effective import CHECKS
from service.params.eligibility import probe_specs
from service.params.limits import ProbeLimits, clamp_to_limits
from stepgrpo_core import POLICIES, ExitSettings, InvalidSetting, build_policy
from stepgrpo_core.policies.entropy import least_checks, most_checks
from tests.support.service.defaults import read

ASKING = ["confidence", "consistency", "entropy", "margin", "sufficiency", "verifier"]
JOINED = [
    "+".join(names)
    for size in (1, 2, 3)
    for names in itertools.permutations(ASKING, size)
    if "entropy" in names
]


@pytest.mark.parametrize("policy", JOINED)
def test_a_request_may_name_it_with_any_others_that_ask(policy: str) -> None:
    effective = effective_settings({"exit_policy": policy}, ExitSettings("confidence"))
    limits = ProbeLimits()
    settings = clamp_to_limits(effective.settings, limits, effective.sources)
    asking = sum(question is not None for question in probe_specs(settings).values())
    assert most_checks(settings) >= least_checks(settings)
    spent = most_checks(settings) + (asking - 1) * settings.max_probes
    assert spent <= limits.limit_probes
    assert settings.max_probes >= 1


def test_every_policy_can_be_joined_to_it() -> None:
    for name in set(POLICIES) - {"none", "entropy", "pattern"}:
        effective_settings({"exit_policy": f"{name}+entropy"}, ExitSettings())


def test_alone_it_has_all_that_a_server_allows() -> None:
    settings = effective_settings({"exit_policy": "entropy"}, ExitSettings()).settings
    (policy,) = build_policy(settings)
    assert policy.needs.max_probes == CHECKS == ProbeLimits().limit_probes
    slow = ExitSettings(entropy_alpha=0.05)
    assert most_checks(effective_settings({"exit_policy": "entropy"}, slow).settings) == 80
    more = ExitSettings(max_probes=25)
    assert most_checks(effective_settings({"exit_policy": "entropy"}, more).settings) == 25


@pytest.mark.parametrize(("flags", "checks"), [([], 32), (["--exit-max-probes", "24"], 24)])
def test_a_server_may_have_it_as_its_policy(tmp_path: Path, flags: list[str], checks: int) -> None:
    settings = read("--exit-policy", "entropy+confidence", *flags, at=tmp_path).settings
    assert most_checks(settings) == checks
    with pytest.raises(BadOption, match=r"exit-max-probes='?5.*20 checks"):
        read("--exit-policy", "entropy", "--exit-max-probes", "5", at=tmp_path)


def test_its_own_number_leaves_the_others_alone() -> None:
    settings = ExitSettings("confidence+entropy", max_probes=2, entropy_probes=20)
    confidence, entropy = build_policy(settings)
    assert (confidence.needs.max_probes, entropy.needs.max_probes) == (None, 20)
    with pytest.raises(InvalidSetting, match="entropy_probes=19"):
        build_policy(ExitSettings("entropy", entropy_probes=19))


@pytest.mark.parametrize("probes", [0, 1, 19])
def test_too_few_that_were_sent_are_refused_by_their_name(probes: int) -> None:
    xargs = {"exit_policy": "entropy+confidence", "exit_max_probes": probes}
    with pytest.raises(BadParameter, match=f"exit_max_probes={probes} .*20 checks") as caught:
        effective_settings(xargs, ExitSettings())
    assert caught.value.parameter == "vllm_xargs.exit_max_probes"
    with pytest.raises(BadParameter) as caught:
        effective_settings({"exit_max_probes": probes}, ExitSettings("entropy", entropy_probes=32))
    assert caught.value.parameter == "vllm_xargs.exit_max_probes"


def test_as_many_as_were_sent_are_put() -> None:
    xargs = {"exit_policy": "entropy", "exit_max_probes": 24}
    assert most_checks(effective_settings(xargs, ExitSettings()).settings) == 24


def test_what_an_operator_does_not_allow_is_refused_by_the_policy() -> None:
    effective = effective_settings({"exit_policy": "entropy"}, ExitSettings())
    with pytest.raises(BadParameter, match="this server allows 16") as caught:
        clamp_to_limits(effective.settings, ProbeLimits(limit_probes=16), effective.sources)
    assert caught.value.parameter == "vllm_xargs.exit_policy"


def test_a_refusal_names_what_was_sent_and_not_what_it_lacks() -> None:
    with pytest.raises(BadParameter) as caught:
        effective_settings({"exit_policy": "pattern"}, ExitSettings())
    assert caught.value.parameter == "vllm_xargs.exit_policy"
    xargs = {"exit_policy": "nonne", "exit_budget_tokens": 40}
    with pytest.raises(BadParameter, match="exit_policy='nonne'") as caught:
        effective_settings(xargs, ExitSettings())
    assert caught.value.parameter == "vllm_xargs.exit_policy"
