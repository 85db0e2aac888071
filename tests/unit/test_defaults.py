"""The server's defaults: flag before environment before file, and what each refusal names."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from service.clients.judge import JudgeServer
from service.config.layers import BadOption
from service.config.server import OPTIONS, Defaults
from service.params import EFFORT
from service.params.limits import ProbeLimits
from service.savings.plan import Plan
from stepgrpo_core import LEXICONS, ExitSettings
from stepgrpo_core.families.table import Family
from tests.support.service.defaults import read


def test_nothing_set_is_the_built_in(tmp_path: Path) -> None:
    assert read(at=tmp_path) == Defaults(settings=ExitSettings(), effort=EFFORT, calibration=None)
    assert read(at=tmp_path, environment={"PATH": "/"}, file="") == Defaults()


@pytest.mark.parametrize(
    ("flags", "variable", "file", "tokens"),
    [
        (["--exit-min-tokens", "1"], "2", "min_tokens: 3", 1),
        ([], "2", "min_tokens: 3", 2),
        ([], None, "min_tokens: 3", 3),
        ([], None, "min_tokens:", 0),
        ([], None, None, 0),
    ],
)
def test_flags_go_before_the_environment_and_that_before_the_file(
    tmp_path: Path, flags: list[str], variable: str | None, file: str | None, tokens: int
) -> None:
    environment = {"STEPGRPO_EXIT_MIN_TOKENS": variable} if variable else {}
    settings = read(*flags, environment=environment, file=file, at=tmp_path).settings
    assert settings.min_tokens == tokens


OTHERS: dict[str, tuple[str, Any]] = {
    "policy": ("budget", "budget"),
    "markers": ("deer", LEXICONS["deer"]),
    "mean": ("arithmetic", "arithmetic"),
    "consistency": ("high", "high"),
    "closing_text": ("x", "x"),
    "inducing_prompt": ("x", "x"),
    "pattern": ("x", "x"),
    "verifier_url": ("http://x", "http://x"),
    "verifier_model": ("x", "x"),
    "max_probes": ("30", 30),
    "repetition_chunks": ("4", 4),
    "effort": ("low=0.3, high=4096", {**EFFORT, "low": 0.3, "high": 4096}),
    "calibration": ("x.json", Path("x.json")),
    "family": ("glm", "glm"),
    "families": ("{x: {end: </x>}}", {"x": Family("x", end="</x>", closing="\n</x>\n\n")}),
    "state": ("x.sqlite", Path("x.sqlite")),
    "holdout": ("0.5", 0.5),
    "holdout_base": ("x", "x"),
    "log": ("x.jsonl", Path("x.jsonl")),
    "log_text": ("true", True),
    "with_tools": ("true", True),
    "stop_in_thinking": ("true", True),
    "own_policies": ("budget, margin", ("budget", "margin")),
    "pairs": ("0.5", 0.5),
    "pairs_url": ("http://x", "http://x"),
    "pairs_base": ("x", "x"),
    "agreement": ("0.5", 0.5),
    "agreement_pairs": ("50", 50),
}
NEEDS = {"verifier_model": "verifier_url", "pairs_url": "pairs", "pairs_base": "pairs"}
NEEDS |= {"agreement": "pairs", "log_text": "log", "holdout_base": "holdout"}


def other_of(name: str) -> tuple[str, Any]:
    """A value of an option that is not its default: as text, and as it is read."""
    default = getattr(ExitSettings(), name, None)
    if name in OTHERS:
        return OTHERS[name]
    if isinstance(default, bool):
        return str(not default).lower(), not default
    fraction = isinstance(default, float) or name in (
        "probe_share",
        "limit_share",
        "probe_load",
        "pairs_load",
    )
    return ("0.5", 0.5) if fraction else ("7", 7)


@pytest.mark.parametrize(
    "name", sorted(OPTIONS.keys() - {"thresholds"})
)  # sets others: tested by itself
def test_every_option_can_be_set_in_all_three_places(tmp_path: Path, name: str) -> None:
    option, (text, value) = OPTIONS[name], other_of(name)
    if name == "probe_backoff":
        text, value = "2.5", 2.5
    flag = [option.flag, text]
    if option.switch:
        flag = [option.flag if value else option.flag.replace("--", "--no-", 1)]
    also = [OPTIONS[NEEDS[name]].flag, OTHERS[NEEDS[name]][0]] if name in NEEDS else []
    for defaults in (
        read(*flag, *also, at=tmp_path),
        read(*also, environment={option.variable: text}, at=tmp_path),
        read(*also, file=f"{name}: {text}", at=tmp_path),
    ):
        places = (defaults.settings, defaults.limits, defaults.plan, defaults)
        assert next(getattr(each, name) for each in places if hasattr(each, name)) == value


def test_every_field_of_the_settings_is_an_option() -> None:
    for section in (ExitSettings, ProbeLimits, Plan):
        assert {field.name for field in dataclasses.fields(section)} < set(OPTIONS)


def test_a_default_policy_that_cannot_act_under_the_limits_ends_the_start(tmp_path: Path) -> None:
    flags = ("--exit-policy", "consistency", "--exit-limit-probes", "2")
    with pytest.raises(BadOption, match=r"--exit-policy='consistency'.*allows 2 probes a sequence"):
        read(*flags, at=tmp_path)


def test_a_judge_behind_a_url_has_its_key_from_the_environment(tmp_path: Path) -> None:
    flags = ("--exit-verifier-url", "http://judge/v1", "--exit-verifier-timeout", "2")
    key = {"STEPGRPO_VERIFIER_API_KEY": "hush\n"}
    judge = read(*flags, environment=key, at=tmp_path).judge
    assert judge == JudgeServer("http://judge/v1", None, 2.0, "hush")
    assert read(*flags, at=tmp_path).judge == JudgeServer("http://judge/v1", None, 2.0)


def test_a_file_may_list_markers_and_map_efforts(tmp_path: Path) -> None:
    file = "markers: [Hmm, Wait]\neffort:\n  minimal: 256\n  low: 0.25\n  high: null\n"
    defaults = read(file=file, at=tmp_path)
    assert defaults.settings.markers == ("Hmm", "Wait")
    assert defaults.effort == {**EFFORT, "minimal": 256, "low": 0.25, "high": None}


def test_a_family_may_be_one_of_the_files(tmp_path: Path) -> None:
    defaults = read("--exit-family", "x", file="families: {x: {end: </x>}}", at=tmp_path)
    assert defaults.family == "x"
    assert defaults.families["x"].end == "</x>"


def test_the_file_itself_may_come_from_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "exit.yaml"
    path.write_text("policy: confidence\nentropy_variance: 1e-3", encoding="utf-8")
    settings = read(environment={"STEPGRPO_EXIT_CONFIG": str(path)}, at=tmp_path).settings
    assert (settings.policy, settings.entropy_variance) == ("confidence", 0.001)


@pytest.mark.parametrize(
    ("flags", "environment", "file", "message"),
    [
        (["--exit-threshold", "1.5"], {}, None, "flag: --exit-threshold=1.5 .*from 0 to 1"),
        (["--exit-max-probes", "2.5"], {}, None, "flag: --exit-max-probes='2.5' .*whole number"),
        (["--exit-policy", "nonne"], {}, None, "flag: --exit-policy='nonne' .*mean 'none'"),
        (["--exit-mean", "x"], {}, None, "flag: --exit-mean='x' .*geometric, arithmetic"),
        (["--exit-markers", "x"], {}, None, "flag: --exit-markers='x' .*deer, paper"),
        (["--exit-policy", "pattern"], {}, None, "built-in default: pattern=None .*regular"),
        (
            ["--exit-policy", "entropy"],
            {"STEPGRPO_EXIT_MAX_PROBES": "5"},
            None,
            "environment: STEPGRPO_EXIT_MAX_PROBES=5 .*20 checks",
        ),
        (
            [],
            {"STEPGRPO_EXIT_THRESHOLD": "nan"},
            None,
            "environment: STEPGRPO_EXIT_THRESHOLD='nan' .*use a number",
        ),
        (
            [],
            {"STEPGRPO_EXIT_TRESHOLD": "1"},
            None,
            "environment: STEPGRPO_EXIT_TRESHOLD='1' .*mean 'STEPGRPO_EXIT_THRESHOLD'",
        ),
        ([], {"STEPGRPO_EXIT_SHADOW": "maybe"}, None, "STEPGRPO_EXIT_SHADOW='maybe' .*true or"),
        ([], {}, "treshold: 1", "file .*exit.yaml: treshold=1 .*did you mean 'threshold'"),
        ([], {}, "on: 1", "file .*exit.yaml: True=1 .*use one of"),
        ([], {}, "threshold: true", "file .*exit.yaml: threshold=True .*use a number"),
        ([], {}, "threshold: [1]", r"file .*exit.yaml: threshold=\[1\] .*number"),
        ([], {}, "policy: 3", "file .*exit.yaml: policy=3 .*use a text"),
        ([], {}, "markers: [1]", r"file .*exit.yaml: markers=\[1\] .*list of texts"),
        ([], {}, "effort: {lw: 1}", "file .*exit.yaml: effort=.*'lw' is not an effort"),
        ([], {}, "effort: {low: 1.5}", "file .*exit.yaml: effort=.*low=1.5 is neither a share"),
        ([], {}, "effort: {none: 0.1}", "effort=.*'none' switches thinking off"),
        ([], {}, "effort: 3", "effort=3 .*use efforts with"),
        ([], {}, "families: {x: {ed: y}}", "exit.yaml: families=.*x.ed: did you mean 'end'"),
        (["--exit-family", "qwen4"], {}, None, "flag: --exit-family='qwen4' .*use one of qwen3"),
        ([], {}, "verifier_url: judge", "verifier_url='judge' .*use http://HOST:PORT/v1"),
        ([], {}, "verifier_model: m", "verifier_model='m' .*set verifier_url as well"),
        ([], {}, "log_text: true", "log_text=True .*set log as well"),
        ([], {}, "log: 3", "file .*exit.yaml: log=3 .*name of a file"),
        (
            ["--exit-verifier-url", "http://judge", "--exit-verifier-timeout", "0"],
            {},
            None,
            "flag: --exit-verifier-timeout=0.0 .*use seconds",
        ),
        (
            ["--exit-verifier-url", "http://judge"],
            {"STEPGRPO_VERIFIER_API_KEY": "hüsh"},
            None,
            r"environment: STEPGRPO_VERIFIER_API_KEY='\.\.\.' .*ASCII",
        ),
        ([], {}, "a: [", "flag: --exit-config=.*it is not YAML"),
        ([], {}, "- 1", "flag: --exit-config=.*must hold keys"),
        (["--exit-config", "/nowhere.yaml"], {}, None, "config='/nowhere.yaml' .*No such file"),
    ],
)
def test_refusals_are_one_line_with_source_key_value_and_remedy(
    tmp_path: Path, flags: list[str], environment: dict[str, str], file: str | None, message: str
) -> None:
    with pytest.raises(BadOption, match=message) as caught:
        read(*flags, environment=environment, file=file, at=tmp_path)
    assert "\n" not in str(caught.value)
