"""Exceptions of the core, by their cause.

StepGrpoError
├── InvalidSetting      the caller passed an invalid value
├── InvalidGroup        the columns passed to a reward are not one group
├── PolicyFailed        a policy cannot be built or returned no verdict: a bug in the policy
├── ProtocolViolation   a driver broke the controller's contract: a bug in the driver
└── InvalidCalibration  a calibration file lacks what a baseline needs
"""

__all__ = [
    "InvalidCalibration",
    "InvalidGroup",
    "InvalidSetting",
    "PolicyFailed",
    "ProtocolViolation",
    "StepGrpoError",
]


class StepGrpoError(Exception):
    """Base class of this project's exceptions."""


class InvalidSetting(StepGrpoError, ValueError):
    """A setting has an invalid value; the message contains the value and a remedy."""

    def __init__(self, name: str, value: object, remedy: str) -> None:
        super().__init__(f"{name}={value!r} is invalid: {remedy}")
        self.name = name
        self.value = value
        self.remedy = remedy


class InvalidGroup(StepGrpoError, ValueError):
    """The completions passed to a reward do not form one group."""


class PolicyFailed(StepGrpoError, RuntimeError):
    """A policy cannot be built, or exits for a reason that does not belong to a policy."""


class ProtocolViolation(StepGrpoError, RuntimeError):
    """A driver sent an event that the controller's state does not allow."""


class InvalidCalibration(StepGrpoError, ValueError):
    """A calibration file lacks what a baseline needs, or is damaged."""
