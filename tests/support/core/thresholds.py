"""Calibrated thresholds of a made-up model."""

from stepgrpo_core import ExitSettings
from stepgrpo_core.risk import SAMPLING, Thresholds, calibrated_settings

__all__ = ["made_thresholds"]


def made_thresholds(policy: str = "confidence", **others: object) -> Thresholds:
    """Return thresholds at temperature 0.6, with `others` as settings."""
    plain = dict.fromkeys(SAMPLING, 0) | {"temperature": 0.6, "top_p": 1, "repetition_penalty": 1}
    settings = ExitSettings(policy=policy, **others)  # type: ignore[arg-type]
    return Thresholds(
        risk="lost",
        epsilon=0.05,
        delta=0.1,
        questions=100,
        observed=0.01,
        most_changed=0.08,
        tokens_left=0.6,
        model="made",
        weights="aa",
        chat_template="",
        sampling=plain,
        settings=calibrated_settings(settings),
    )
