"""What a request asks for outside ``vllm_xargs``, each value with the parameter that set it."""

from dataclasses import dataclass, field
from typing import Any

__all__ = ["BadParameter", "Requested", "ThinkingRequest"]


_SHOWN = 100  # characters of what a client wrote


class BadParameter(ValueError):
    """A request parameter that cannot be honoured; becomes HTTP 400 in OpenAI's shape."""

    def __init__(self, parameter: str, value: object, remedy: str) -> None:
        name, shown = _shortened(parameter), _shortened(repr(value))
        super().__init__(f"{name}={shown} cannot be honoured: {remedy}")
        self.parameter = parameter
        self.value = value


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


@dataclass(frozen=True, slots=True)
class Requested:
    """A value, and the parameter that asked for it."""

    value: Any
    parameter: str
    written: Any = field(default=None, compare=False)
    """The value as the client wrote it, where that is another."""

    @property
    def shown(self) -> Any:
        """The value as its client knows it."""
        return self.value if self.written is None else self.written

    def __str__(self) -> str:
        return f"{self.parameter}={_shortened(repr(self.shown))}"

    def refusal(self, remedy: str) -> BadParameter:
        """What is answered to it."""
        return BadParameter(self.parameter, self.shown, remedy)


@dataclass(frozen=True, slots=True)
class ThinkingRequest:
    """What a request's body asks for outside ``vllm_xargs``."""

    switch: Requested | None = None
    """Thinking on or off."""
    effort: Requested | None = None
    """One of `EFFORTS`."""
    budget: Requested | None = None
    """Reasoning tokens; its value None is no limit."""
    off: Requested | None = None
    """What asked for no thinking at all: a switch, effort none, or a budget of 0."""
    already_off: bool = False
    """Nothing is left to close: the chat template switches it off, or the model never thinks."""
