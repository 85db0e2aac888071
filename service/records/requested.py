"""Parameters of a request outside ``vllm_xargs``: each value with the name of its parameter."""

from dataclasses import dataclass, field
from typing import Any

__all__ = ["BadParameter", "Requested", "ThinkingRequest"]


_SHOWN = 100  # characters of a client's value that a message quotes


class BadParameter(ValueError):
    """A request parameter that is invalid here; becomes HTTP 400 in OpenAI's error format."""

    def __init__(self, parameter: str, value: object, remedy: str) -> None:
        name, shown = _shortened(parameter), _shortened(repr(value))
        super().__init__(f"{name}={shown} is invalid: {remedy}")
        self.parameter = parameter
        self.value = value


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


@dataclass(frozen=True, slots=True)
class Requested:
    """A value and the parameter that set it."""

    value: Any
    parameter: str
    written: Any = field(default=None, compare=False)
    """The value as the client wrote it, if it was converted."""

    @property
    def shown(self) -> Any:
        """The value as the client knows it, for messages."""
        return self.value if self.written is None else self.written

    def __str__(self) -> str:
        return f"{self.parameter}={_shortened(repr(self.shown))}"

    def refusal(self, remedy: str) -> BadParameter:
        """Return the error that rejects this value; `remedy` says what to do instead."""
        return BadParameter(self.parameter, self.shown, remedy)


@dataclass(frozen=True, slots=True)
class ThinkingRequest:
    """Thinking parameters of a request body outside ``vllm_xargs``."""

    switch: Requested | None = None
    """Thinking on or off."""
    effort: Requested | None = None
    """One of `EFFORTS`."""
    budget: Requested | None = None
    """Reasoning tokens; the value None means no limit."""
    off: Requested | None = None
    """The parameter that turned thinking off: a switch, effort none, or a budget of 0."""
    already_off: bool = False
    """There is no thinking to close: the chat template turns it off, or the model never thinks."""
