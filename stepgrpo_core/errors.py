"""Every exception of the core, by whose fault it is.

StepGrpoError
├── InvalidSetting      the caller passed a value that cannot be honoured
├── InvalidGroup        a reward was asked for lists that are not one group
├── PolicyFailed        a policy cannot be built or gave no verdict: a bug in the policy
├── ProtocolViolation   a driver broke the controller's contract: a bug in the driver
└── InvalidCalibration  a calibration file does not say what a baseline needs
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
    """Base of all errors raised on purpose by this project."""


class InvalidSetting(StepGrpoError, ValueError):
    """A setting has a value that cannot be honoured; the message names value and remedy."""

    def __init__(self, name: str, value: object, remedy: str) -> None:
        super().__init__(f"{name}={value!r} cannot be honoured: {remedy}")
        self.name = name
        self.value = value
        self.remedy = remedy


class InvalidGroup(StepGrpoError, ValueError):
    """The completions passed to a reward do not form one group."""


class PolicyFailed(StepGrpoError, RuntimeError):
    """A policy cannot be built, or exits for a reason that is no policy's."""


class ProtocolViolation(StepGrpoError, RuntimeError):
    """A driver sent an event that the controller's state does not allow."""


class InvalidCalibration(StepGrpoError, ValueError):
    """A calibration lacks what a baseline needs."""
