"""Calibrated exit settings: what they promise, and for which model, template and sampling.

The calibration writes them to a file, and a server that loads the file serves by them.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from stepgrpo_core.errors import InvalidCalibration, InvalidSetting
from stepgrpo_core.policies import ExitSettings, build_policy
from stepgrpo_core.risk.traces import Loss

__all__ = ["SAMPLING", "SETTINGS", "Thresholds", "calibrated_settings", "parse_thresholds"]

SAMPLING = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
)
"""Sampling parameters, as vLLM names them, under which thresholds were calibrated."""

_STEPS = ("markers", "marker_gap")
_INDUCED = ("inducing_prompt", "probe_max_tokens")
_SHARED = (
    "max_probes",
    "min_tokens",
    "min_interval",
    "probe_share",
    "probe_backoff",
    "closing_text",
    "answer_reserve",
    "close_on_eos",
)
_CONFIDENCE = (*_STEPS, *_INDUCED, "mean", "skip_first", "require_end")
SETTINGS: Mapping[str, tuple[str, ...]] = {
    "confidence": ("threshold", *_CONFIDENCE),
    "consistency": ("consistency", *_INDUCED),
    "entropy": ("entropy_variance", "entropy_alpha", "entropy_probes"),
    "give_up": ("give_up_tokens", "give_up_level", *_CONFIDENCE),
    "margin": ("margin_threshold",),
    "sufficiency": ("sufficiency_score", *_STEPS),
}
"""Settings that decide when each policy exits, that of its threshold first; policies that cannot be
calibrated are missing."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Settings of a policy whose risk was proved to be at most `epsilon`."""

    risk: Loss
    epsilon: float
    delta: float
    """Probability, over the draw of the questions, that the risk is larger after all."""
    questions: int
    observed: float
    """Share of the questions with a loss."""
    most_changed: float
    """Largest share of changed answers that fits the calibration: epsilon for the risk ``changed``,
    else the upper bound of that share. A server watches it, for it cannot see what is lost."""
    tokens_left: float
    """Thinking tokens with exits over those without."""
    model: str
    """Name of the calibrated model."""
    weights: str
    """Fingerprint of its files; of an adapter that of the base, +, and its own."""
    chat_template: str
    """Fingerprint of its chat template, or "" without one."""
    sampling: Mapping[str, float]
    """Values of the parameters in `SAMPLING`."""
    settings: Mapping[str, Any]
    """Policy and the settings that decide when it exits."""

    def as_dict(self) -> dict[str, Any]:
        """Return the data of the file, of plain types."""
        found = dataclasses.asdict(self)
        found["settings"] = {
            name: [*value] if isinstance(value, tuple) else value
            for name, value in self.settings.items()
        }
        return found

    def same_sampling(self, params: object) -> bool:
        """Return whether sampling parameters, an object with vLLM's names, are the calibrated."""
        return all(getattr(params, name) == value for name, value in self.sampling.items())

    @property
    def promise(self) -> dict[str, Any]:
        """Return what is promised, for a response."""
        return {"risk": self.risk, "epsilon": self.epsilon, "delta": self.delta}


def calibrated_settings(settings: ExitSettings) -> dict[str, Any]:
    """Return the policy of `settings` and all settings that decide when it exits.

    Raises InvalidSetting for a policy that cannot be calibrated.
    """
    names = settings.policy.split("+")
    for name in names:
        if name not in SETTINGS:
            remedy = f"only {', '.join(SETTINGS)} can be calibrated"
            raise InvalidSetting("policy", settings.policy, remedy)
    read = dict.fromkeys(["policy", *(each for name in names for each in SETTINGS[name]), *_SHARED])
    return {name: getattr(settings, name) for name in read}


def parse_thresholds(data: object) -> Thresholds:
    """Return the content of a file; raises InvalidCalibration, which says what is wrong."""
    names = [each.name for each in dataclasses.fields(Thresholds)]
    if not isinstance(data, Mapping) or {*data} != {*names}:
        raise InvalidCalibration(f"it must have the keys {', '.join(names)}, and no others")
    if data["risk"] not in get_args(Loss):
        raise InvalidCalibration(f"risk={data['risk']!r}: use {' or '.join(get_args(Loss))}")
    for name in ("epsilon", "delta", "most_changed"):
        if not isinstance(data[name], float) or not 0 < data[name] < 1:
            raise InvalidCalibration(f"{name}={data[name]!r}: use a number between 0 and 1")
    if not isinstance(data["weights"], str) or not data["weights"]:
        raise InvalidCalibration(f"weights={data['weights']!r}: use the fingerprint of a model")
    sampling = data["sampling"]
    if not isinstance(sampling, Mapping) or {*sampling} != {*SAMPLING}:
        raise InvalidCalibration(f"sampling must have the keys {', '.join(SAMPLING)}")
    return Thresholds(**{**data, "settings": _settings(data["settings"])})


def _settings(given: object) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise InvalidCalibration("settings must hold names and values")
    try:
        values: dict[str, Any] = {
            str(name): tuple(value) if isinstance(value, list) else value
            for name, value in given.items()
        }
        made = ExitSettings(**values)
        build_policy(made)
        wanted = calibrated_settings(made)
    except (TypeError, InvalidSetting) as error:
        raise InvalidCalibration(f"settings: {error}") from error
    if missing := wanted.keys() ^ given.keys():
        raise InvalidCalibration(f"settings must have, of policy {made.policy}: {[*missing]}")
    return wanted
