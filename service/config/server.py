"""The server's defaults: what holds for requests that say nothing."""

import argparse
import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from service.clients.judge import KEY_VARIABLE, JudgeServer
from service.config.layers import CONFIG, BadOption, Option, Resolved, read_yaml, reader_of, resolve
from service.params import BadParameter
from service.params.effective import enough_checks
from service.params.effort import EFFORT, read_efforts
from service.params.limits import ProbeLimits, clamp_to_limits
from service.params.patterns import matcher_of
from service.savings.plan import Plan
from stepgrpo_core import LEXICONS, POLICIES, ExitSettings, InvalidSetting, build_policy
from stepgrpo_core.families.table import FAMILIES, Family, read_families

__all__ = ["OPTIONS", "Defaults", "add_flags", "read_defaults"]

Effort = Mapping[str, int | float | None]
Section = TypeVar("Section", ExitSettings, ProbeLimits, Plan)

_HELP = {
    "policy": "Policy of requests that name none, or several joined by +: " + ", ".join(POLICIES),
    "threshold": "Exit when a trial answer's confidence is greater than this (0 to 1).",
    "max_probes": "Questions per policy and sequence.",
    "entropy_probes": "Policy entropy: its questions, in place of max_probes. Default: 32 where "
    "neither is set.",
    "min_tokens": "Reasoning tokens before the first exit or question.",
    "min_interval": "Reasoning tokens between two questions of one policy.",
    "budget_tokens": "Policy budget: reasoning tokens after which the thinking is closed.",
    "max_steps": "Policy budget: steps after which the thinking is closed.",
    "marker_gap": "Policies confidence and sufficiency: reasoning tokens without a step marker "
    "after which the end of a paragraph stands in for one.",
    "pattern": "Policy pattern: regular expression (RE2) on the line of reasoning that ends it.",
    "shadow": "Decide and record, but change nothing.",
    "answer_reserve": "Tokens of the limit that must be left for the answer.",
    "closing_text": "Injected on exit; of the model's family unless set.",
    "probe_load": "Probes are at most this share (above 0, to 1) of the running sequences; one may "
    "always run, none starts while requests queue, and requests with a seed are exempt.",
    "probe_timeout": "Seconds after which a probe without an answer has failed.",
    "verifier_url": "Policy verifier: base URL of an OpenAI-compatible server that judges, such as "
    "http://judge:8000/v1; its key: STEPGRPO_VERIFIER_API_KEY. Default: the served model itself.",
    "verifier_model": "Policy verifier: name of the model there. Default: the only one.",
    "verifier_timeout": "Seconds that a judge behind a URL has for one question.",
    "holdout": "Share of conversations, 0 to 1, that are served without exits to measure what "
    "exits save; requests that set a policy, a budget or an effort are not.",
    "holdout_base": "Name of the base model, which then serves what is held out of the requests to "
    "its adapters, to measure what their training saves.",
    "pairs": "Share of requests, 0 to 1, whose run without exits is made in the background to "
    "measure what exits save and whether they change answers.",
    "pairs_load": "Paired runs are at most this share (above 0, to 1) of the running sequences; "
    "one may always run, none while requests queue.",
    "pairs_url": "Base URL of a server that makes the paired runs from token ids, such as "
    "http://replica:8000/v1; its key: STEPGRPO_PAIRS_API_KEY. Default: this server's own engine.",
    "pairs_base": "Name of the base model, here (beside its adapters) or behind pairs_url: "
    "requests that nothing exits are paired with it, to measure what training saves.",
    "agreement": "Quality guard: share of answers, between 0 and 1, that exits must leave as they "
    "were. Where the 95 % interval of the paired runs begins below it, the policy is switched off.",
    "agreement_pairs": "Judged pairs before the guard judges, 20 to 500.",
    "probation": "Seconds after which a policy that was switched off is tried again; default: an "
    "operator switches it on (stepgrpo-serve guard).",
    "state": "SQLite file of the sums; without it they end with the server.",
    "limit_probes": "Probes per sequence that a request may ask for, at most.",
    "limit_interval": "Reasoning tokens between two probes that it may ask for, at least.",
    "limit_share": "Probe tokens per reasoning token, 0 to 1, at most.",
    "inducing_prompt": "Induces a trial answer; of the model's family unless set.",
    "probe_share": "Tokens of one policy's probes per reasoning token so far, at most. Default: no "
    "limit.",
    "probe_backoff": "Factor (1 to 10) by which the interval grows from one question to the next.",
    "probe_max_tokens": "Policies confidence and consistency: tokens of a trial answer, at most.",
    "mean": "Policy confidence: mean that makes one confidence of the token probabilities: "
    "geometric, arithmetic or minimum.",
    "skip_first": "Policy confidence: leave the first token of a trial answer out.",
    "require_end": "Policy confidence: a trial answer that does not close the thinking counts 0.",
    "close_on_eos": "Close and answer a completion that ends inside its thinking.",
    "sufficiency_score": "Policy sufficiency: exit when the model's own score, 0 to 100, is at "
    "least this.",
    "verifier_threshold": "Policy verifier: exit when the probability of yes, 0 to 1, is greater "
    "than this.",
    "consistency": "Policy consistency: trial answers in a row that must agree, and tokens between "
    "them: mild 8/64, low 5/64, mid 3/64, high 2/64, max 2/32.",
    "margin_threshold": "Policy margin: exit when the most likely token leads the end of the "
    "thinking by at most this many nats.",
    "entropy_alpha": "Policy entropy: weight, 0.01 to 1, of the newest check in the moving "
    "averages; none exits before 4 / alpha checks.",
    "entropy_variance": "Policy entropy: exit when the moving variance is below this, in square "
    "nats.",
    "budget_leaves_answer": "Policy budget: close in time to leave the answer's reserve, whatever "
    "the budget.",
    "repetition_chunks": "Policy repetition: identical chunks in a row that make a loop.",
}


@dataclass(frozen=True, slots=True)
class Defaults:
    """What requests that say nothing get."""

    settings: ExitSettings = dataclasses.field(default_factory=ExitSettings)
    effort: Effort = dataclasses.field(default_factory=lambda: EFFORT)
    calibration: Path | None = None
    limits: ProbeLimits = dataclasses.field(default_factory=ProbeLimits)
    family: str | None = None
    """The model's; None: its tokenizer tells."""
    families: Mapping[str, Family] = dataclasses.field(default_factory=dict)
    """The operator's own."""
    resolved: Resolved = dataclasses.field(default_factory=lambda: Resolved({}, {}), compare=False)
    """Where each option was set."""
    plan: Plan = dataclasses.field(default_factory=Plan)
    """How savings are measured."""
    log: Path | None = None
    """File of the request log."""
    log_text: bool = False
    """With completions in it."""
    with_tools: bool = False
    """Exits also where tools are offered."""
    judge: JudgeServer | None = None
    """Of policy verifier, behind a URL."""
    stop_in_thinking: bool = False
    """Stop strings apply to the reasoning, too."""


def _markers(value: Any) -> tuple[str, ...]:
    if isinstance(value, list) and value and all(isinstance(each, str) and each for each in value):
        return tuple(value)
    if not isinstance(value, str) or value not in LEXICONS:
        raise ValueError(f"use one of {', '.join(LEXICONS)}, or in a file a list of texts")
    return LEXICONS[value]


def _path(value: Any) -> Path:
    if not isinstance(value, str | Path):
        raise ValueError("use the name of a file")
    return Path(value)


def _families(value: Any) -> Mapping[str, Family]:
    return read_families(yaml.safe_load(value) if isinstance(value, str) else value)


def _options() -> dict[str, Option]:
    options = {"markers": Option("markers", _markers, "Step markers: a named lexicon.")}
    options["state"] = Option("state", _path, _HELP["state"])
    for section in (ExitSettings, ProbeLimits, Plan):
        hints = typing.get_type_hints(section)
        for name in (field.name for field in dataclasses.fields(section)):
            if name not in options:
                kind = hints[name]
                options[name] = Option(name, reader_of(kind), _HELP[name], kind is bool)
    effort = "What efforts are worth, as low=0.2,high=4096: a share of the token limit, or tokens."
    options["effort"] = Option("effort", read_efforts, effort)
    calibration = (
        "Lengths of un-exited completions (stepgrpo-train calibrate); default: calibration.json "
        "in the model's folder. Without it no saved tokens are reported."
    )
    options["calibration"] = Option("calibration", _path, calibration)
    family = f"How the model writes thinking: {', '.join(FAMILIES)}, or one of `families`. "
    family += "Default: its tokenizer tells."
    options["family"] = Option("family", reader_of(str), family)
    families = (
        "More families, from name to fields, as start, end, closing, tools, tokens, template, text."
    )
    options["families"] = Option("families", _families, families)
    log = (
        "File for a JSON line per sequence: what it cost and saved, when, and its probes; no text."
    )
    options["log"] = Option("log", _path, log)
    text = "Write the completions, reasoning included, into the request log as well. Default: off."
    options["log_text"] = Option("log_text", reader_of(bool), text, switch=True)
    stop = (
        "`stop` and `stop_token_ids` of requests end their reasoning, too, as in vLLM. Default: "
        "under every policy they apply to the answer alone."
    )
    options["stop_in_thinking"] = Option("stop_in_thinking", reader_of(bool), stop, switch=True)
    tools = (
        "Policies that ask for a trial answer act also on requests that offer tools: on the "
        "thinking before the call or the answer. Default: off, they abstain."
    )
    options["with_tools"] = Option("with_tools", reader_of(bool), tools, switch=True)
    return options


_SECTIONS = (ExitSettings(), ProbeLimits(), Plan())
OPTIONS = _options()
"""Every option by name. A field of ExitSettings or ProbeLimits is one without more ado."""


def add_flags(parser: Any) -> None:
    """The flags of all options; None where one is not given."""
    group = parser.add_argument_group("ExitConfig", "When reasoning ends from outside.")
    text = "YAML file of options, by their names without --exit- and with underscores."
    group.add_argument("--exit-config", metavar="FILE", default=None, help=text)
    for option in OPTIONS.values():
        holders = (each for each in _SECTIONS if hasattr(each, option.name))
        default = getattr(next(holders, None), option.name, None)
        shown = "" if default is None or option.name == "markers" else f" Default: {default!r}."
        text = (option.help + shown).replace("%", "%%")
        if option.switch:
            action = argparse.BooleanOptionalAction
            group.add_argument(option.flag, action=action, default=None, help=text)
        else:
            group.add_argument(option.flag, metavar="VALUE", default=None, help=text)


def read_defaults(args: argparse.Namespace, environment: Mapping[str, str]) -> Defaults:
    """The defaults from flags before the environment before a YAML file; raises BadOption."""
    config = args.exit_config or environment.get(CONFIG)
    file = read_yaml(Path(config)) if config else ("file", {})
    flags = {name: getattr(args, f"exit_{name}") for name in OPTIONS}
    resolved = resolve(OPTIONS, flags, environment, file)
    settings, limits = _settings(resolved), _built(ProbeLimits, resolved)
    try:
        clamp_to_limits(settings, limits)
    except BadParameter as error:
        raise resolved.refusal("policy", settings.policy, str(error)) from error
    family, families = resolved.values.get("family"), resolved.values.get("families", {})
    known = [*FAMILIES, *families]
    if family is not None and family not in known:
        raise resolved.refusal("family", family, f"use one of {', '.join(known)}")
    if resolved.values.get("log_text") and "log" not in resolved.values:
        raise resolved.refusal("log_text", True, "set log as well")
    return Defaults(
        settings,
        resolved.values.get("effort", EFFORT),
        resolved.values.get("calibration"),
        limits,
        family,
        families,
        resolved,
        plan=_built(Plan, resolved),
        log=resolved.values.get("log"),
        log_text=resolved.values.get("log_text", False),
        with_tools=resolved.values.get("with_tools", False),
        judge=_judge(resolved, settings, limits, environment.get(KEY_VARIABLE, "").strip()),
        stop_in_thinking=resolved.values.get("stop_in_thinking", False),
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


def _built(section: type[Section], resolved: Resolved) -> Section:
    """A section of what was set; raises BadOption."""
    names = {field.name for field in dataclasses.fields(section)}
    try:
        return section(**{name: value for name, value in resolved.values.items() if name in names})
    except InvalidSetting as error:
        raise resolved.refusal(error.name, error.value, error.remedy) from error


def _settings(resolved: Resolved) -> ExitSettings:
    settings = _built(ExitSettings, resolved)
    counted = resolved.values.keys() & {"max_probes", "entropy_probes"}
    if "entropy" in settings.policy.split("+") and not counted:
        settings = dataclasses.replace(settings, entropy_probes=enough_checks(settings))
    try:
        build_policy(settings, matcher_of(settings))
    except InvalidSetting as error:
        raise resolved.refusal(error.name, error.value, error.remedy) from error
    return settings
