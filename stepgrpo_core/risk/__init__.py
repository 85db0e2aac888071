"""Risk control: exit thresholds whose risk stays under a bound with a chosen confidence."""

from stepgrpo_core.risk.drift import RiskWatch
from stepgrpo_core.risk.selection import (
    Candidate,
    Selection,
    questions_needed,
    risk_by_question,
    select,
    select_threshold,
)
from stepgrpo_core.risk.testing import p_value, upper_bound
from stepgrpo_core.risk.thresholds import (
    SAMPLING,
    Thresholds,
    calibrated_settings,
    parse_thresholds,
)
from stepgrpo_core.risk.traces import LOSSES, Exit, Loss, Reading, Run, Trace, replay

__all__ = [
    "LOSSES",
    "SAMPLING",
    "Candidate",
    "Exit",
    "Loss",
    "Reading",
    "RiskWatch",
    "Run",
    "Selection",
    "Thresholds",
    "Trace",
    "calibrated_settings",
    "p_value",
    "parse_thresholds",
    "questions_needed",
    "replay",
    "risk_by_question",
    "select",
    "select_threshold",
    "upper_bound",
]
