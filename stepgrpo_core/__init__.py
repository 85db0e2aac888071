"""Shared logic of Step-GRPO: steps, exits, rewards, answers, savings.

The package is sans-IO and uses only the standard library: no engine, sockets, clock or logging. The
server and the trainer drive it.
"""

from stepgrpo_core.answers import answer_text, final_answer, last_box
from stepgrpo_core.confidence import answer_confidence, ended_or_zero
from stepgrpo_core.control.controller import ExitController
from stepgrpo_core.control.events import (
    CancelProbe,
    CloseThinking,
    Emit,
    Finished,
    FinishThinking,
    Outcome,
    ProbeAnswered,
    ProbeRefused,
    StartProbe,
    ThinkingFormat,
    Tokens,
)
from stepgrpo_core.control.states import State
from stepgrpo_core.errors import (
    InvalidCalibration,
    InvalidGroup,
    InvalidSetting,
    PolicyFailed,
    ProtocolViolation,
    StepGrpoError,
)
from stepgrpo_core.patterns import compiled_pattern
from stepgrpo_core.policies import (
    POLICIES,
    ExitPolicy,
    ExitReason,
    ExitSettings,
    Matcher,
    build_policy,
    load_policies,
)
from stepgrpo_core.rewards import REWARDS, Group, Reward, StepAware, build_reward
from stepgrpo_core.savings.baseline import Baseline, Prediction, fit_baseline, parse_baseline
from stepgrpo_core.segmenter import DEFAULT_MARKERS, LEXICONS, Marker, StepSegmenter, count_steps

__all__ = [
    "DEFAULT_MARKERS",
    "LEXICONS",
    "POLICIES",
    "REWARDS",
    "Baseline",
    "CancelProbe",
    "CloseThinking",
    "Emit",
    "ExitController",
    "ExitPolicy",
    "ExitReason",
    "ExitSettings",
    "FinishThinking",
    "Finished",
    "Group",
    "InvalidCalibration",
    "InvalidGroup",
    "InvalidSetting",
    "Marker",
    "Matcher",
    "Outcome",
    "PolicyFailed",
    "Prediction",
    "ProbeAnswered",
    "ProbeRefused",
    "ProtocolViolation",
    "Reward",
    "StartProbe",
    "State",
    "StepAware",
    "StepGrpoError",
    "StepSegmenter",
    "ThinkingFormat",
    "Tokens",
    "answer_confidence",
    "answer_text",
    "build_policy",
    "build_reward",
    "compiled_pattern",
    "count_steps",
    "ended_or_zero",
    "final_answer",
    "fit_baseline",
    "last_box",
    "load_policies",
    "parse_baseline",
]
