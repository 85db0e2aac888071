"""Risk control: exit thresholds whose risk stays under a bound with a chosen confidence."""

from stepgrpo_core.risk.drift import RiskWatch
from stepgrpo_core.risk.selection import (
    Candidate,
    Selection,
    questions_needed,
    select_threshold,
)
from stepgrpo_core.risk.testing import p_value, upper_bound
from stepgrpo_core.risk.traces import LOSSES, Exit, Loss, Reading, Trace, replay, risk_by_question

__all__ = [
    "LOSSES",
    "Candidate",
    "Exit",
    "Loss",
    "Reading",
    "RiskWatch",
    "Selection",
    "Trace",
    "p_value",
    "questions_needed",
    "replay",
    "risk_by_question",
    "select_threshold",
    "upper_bound",
]
