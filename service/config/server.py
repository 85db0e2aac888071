"""The server's defaults, which apply unless a request overrides them."""

import argparse
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from service.clients.judge import KEY_VARIABLE, JudgeServer
from service.config.layers import (
    NO_FILE,
    BadOption,
    Resolved,
    add_option_flags,
    options_of,
    read_yaml,
    resolve,
)
from service.config.thresholds import read_thresholds, with_thresholds
from service.params import BadParameter
from service.params.effective import enough_checks
from service.params.effort import EFFORT, read_efforts
from service.params.limits import ProbeLimits, clamp_to_limits
from service.params.patterns import matcher_of
from service.savings.plan import Plan
from stepgrpo_core import (
    LEXICONS,
    POLICIES,
    ExitSettings,
    InvalidSetting,
    build_policy,
    load_policies,
)
from stepgrpo_core.families.table import FAMILIES, Family, read_families
from stepgrpo_core.risk import Thresholds

__all__ = [
    "CONFIG",
    "OPTIONS",
    "PREFIX",
    "Defaults",
    "ServerSettings",
    "add_flags",
    "read_defaults",
]

PREFIX = "STEPGRPO_EXIT_"
CONFIG = "STEPGRPO_EXIT_CONFIG"
"""Environment variable with the name of the YAML file."""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Settings of the whole server. Raises InvalidSetting."""

    effort: Mapping[str, int | float | None] = field(default_factory=lambda: EFFORT)
    """Reasoning that each effort allows: a share of the token limit, or tokens, as in
    low=0.2,high=4096; in the file also a mapping."""
    calibration: Path | None = None
    """File of completion lengths without exits, written by stepgrpo-train calibrate; without one no
    saved tokens are reported. None means calibration.json in the model's folder."""
    family: str | None = None
    """Model family, which tells how the model writes thinking: a built-in one or one of `families`.
    None means the one that its tokenizer shows."""
    families: Mapping[str, Family] = field(default_factory=dict)
    """More model families: a mapping from name to fields (start, end, closing, inducing, tools,
    tokens, template, text)."""
    log: Path | None = None
    """File for one JSON line per sequence: its tokens and savings, its timing, and its probes, but
    no text. None means no log."""
    log_text: bool = False
    """Write completions to the log as well, reasoning included."""
    thresholds: Path | None = None
    """File of calibrated thresholds, written by stepgrpo-train calibrate-exit, that sets the policy
    for requests to the calibrated model with the calibrated sampling. None means no such file."""
    with_tools: bool = False
    """Let policies that probe for an answer act on requests that offer tools too: on the thinking
    before the tool call or the answer. Otherwise they abstain there."""
    own_policies: tuple[str, ...] = ()
    """Exit policies of your own that requests may choose besides those of --exit-policy, separated
    by commas: package.module:name, or entry points in group stepgrpo.policies."""
    stop_in_thinking: bool = False
    """Apply `stop` and `stop_token_ids` of requests to the reasoning too, as vLLM does. Otherwise
    they apply to the answer alone, under every policy."""

    def __post_init__(self) -> None:
        known = [*FAMILIES, *self.families]
        if self.family is not None and self.family not in known:
            raise InvalidSetting("family", self.family, f"use one of {', '.join(known)}")
        if self.log_text and self.log is None:
            raise InvalidSetting("log_text", True, "set log as well")


@dataclass(frozen=True, slots=True)
class Defaults(ServerSettings):
    """All settings of the server; parameters of requests override them."""

    settings: ExitSettings = field(default_factory=ExitSettings)
    limits: ProbeLimits = field(default_factory=ProbeLimits)
    plan: Plan = field(default_factory=Plan)
    judge: JudgeServer | None = None
    """The judge of policy verifier, if it is behind a URL."""
    calibrated: Thresholds | None = None
    """Content of the file of `thresholds`."""
    resolved: Resolved = field(default_factory=lambda: Resolved({}, {}), compare=False)
    """The source of each option."""


def _markers(value: Any) -> tuple[str, ...]:
    if isinstance(value, list) and value and all(isinstance(each, str) and each for each in value):
        return tuple(value)
    if not isinstance(value, str) or value not in LEXICONS:
        raise ValueError(f"use one of {', '.join(LEXICONS)}, or in a file a list of texts")
    return LEXICONS[value]


def _names(value: Any) -> tuple[str, ...]:
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(each, str) for each in names):
        raise ValueError("use names separated by commas, or in a file a list of them")
    return tuple(each.strip() for each in names if each.strip())


def _families(value: Any) -> Mapping[str, Family]:
    return read_families(yaml.safe_load(value) if isinstance(value, str) else value)


OPTIONS = options_of(
    [ExitSettings, ProbeLimits, Plan, ServerSettings],
    "--exit-",
    PREFIX,
    readers={
        "markers": _markers,
        "own_policies": _names,
        "effort": read_efforts,
        "families": _families,
    },
    choices={"policy": POLICIES, "markers": LEXICONS, "family": FAMILIES},
)
"""Every option by name."""


def add_flags(parser: Any) -> None:
    """Add the flags of all options."""
    group = parser.add_argument_group("ExitConfig", "When reasoning ends early.")
    text = f"YAML file of options, named as here without --exit-. Default: the value of {CONFIG}."
    group.add_argument("--exit-config", metavar="FILE", default=argparse.SUPPRESS, help=text)
    add_option_flags(group, OPTIONS)


def read_defaults(args: argparse.Namespace, environment: Mapping[str, str]) -> Defaults:
    """Return the settings from flags, the environment and the YAML file; raises BadOption."""
    config = getattr(args, "exit_config", None) or environment.get(CONFIG)
    file = read_yaml(Path(config)) if config else NO_FILE
    resolved = resolve(OPTIONS, args, environment, file, prefix=PREFIX, besides=[CONFIG])
    _load_own(resolved)
    calibrated = None
    if path := resolved.values.get("thresholds"):
        calibrated = read_thresholds(path)
        resolved = with_thresholds(resolved, path, calibrated)
    settings, limits = _settings(resolved), resolved.build(ProbeLimits)
    try:
        within = clamp_to_limits(settings, limits)
    except BadParameter as error:
        raise resolved.refusal("policy", settings.policy, str(error)) from error
    if calibrated is not None and within != settings:
        remedy = "limits of probes (limit_*) would change what was calibrated; loosen them"
        raise resolved.refusal("thresholds", str(path), remedy)
    server = resolved.build(ServerSettings)
    return Defaults(
        **{each.name: getattr(server, each.name) for each in dataclasses.fields(server)},
        settings=settings,
        limits=limits,
        plan=resolved.build(Plan),
        calibrated=calibrated,
        judge=_judge(resolved, settings, limits, environment.get(KEY_VARIABLE, "").strip()),
        resolved=resolved,
    )


def _judge(
    resolved: Resolved, settings: ExitSettings, limits: ProbeLimits, key: str
) -> JudgeServer | None:
    url, model = settings.verifier_url, settings.verifier_model
    if url is None:
        if model is not None:
            raise resolved.refusal("verifier_model", model, "set verifier_url as well")
        return None
    try:
        return JudgeServer(url, model, limits.verifier_timeout, key or None)
    except InvalidSetting as error:
        if error.name == KEY_VARIABLE:
            raise BadOption("environment", error.name, error.value, error.remedy) from error
        raise resolved.refusal(error.name, error.value, error.remedy) from error


def _load_own(resolved: Resolved) -> None:
    """Import the operator's own policies, before anything is checked that names one."""
    named = [("own_policies", name) for name in resolved.values.get("own_policies", ())]
    for option, name in [*named, ("policy", resolved.values.get("policy", "none"))]:
        try:
            load_policies(name)
        except InvalidSetting as error:
            raise resolved.refusal(option, name, error.remedy) from error
    for option, name in named:
        if name not in POLICIES:
            raise resolved.refusal(option, name, "write package.module:name")


def _settings(resolved: Resolved) -> ExitSettings:
    settings = resolved.build(ExitSettings)
    counted = resolved.values.keys() & {"max_probes", "entropy_probes"}
    if "entropy" in settings.policy.split("+") and not counted:
        settings = dataclasses.replace(settings, entropy_probes=enough_checks(settings))
    try:
        build_policy(settings, matcher_of(settings))
    except InvalidSetting as error:
        raise resolved.refusal(error.name, error.value, error.remedy) from error
    return settings
