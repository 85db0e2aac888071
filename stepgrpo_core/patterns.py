"""Users' regular expressions, compiled to a `Matcher` for the policy ``pattern``.

RE2 compiles them: its time is linear in the text for any expression, where Python's `re` can take
exponential time. The core uses only the standard library, so drivers pass the RE2 module in. The
time also grows with the size of the expression, so that is limited, too: within the limits below,
no search of the last 1 024 characters of a line (`PatternPolicy`) took more than 20 ms on one core;
usual expressions take microseconds.
"""

from collections.abc import Hashable
from functools import lru_cache
from typing import Any, Protocol

from stepgrpo_core.errors import InvalidSetting
from stepgrpo_core.policies import ExitSettings, Matcher

__all__ = ["MAX_CHARACTERS", "RegexEngine", "compiled_pattern"]

MAX_CHARACTERS = 512
MAX_BYTES = 2**16
"""Memory limit of one compiled expression, including its cache of states."""
CACHE_SIZE = 128  # expressions


class RegexEngine(Hashable, Protocol):
    """The part of the module ``re2`` (google-re2) that is used."""

    @property
    def error(self) -> type[Exception]:
        """Exception for an invalid expression."""

    def Options(self) -> Any:  # noqa: N802 - the name in re2
        """Return default options."""

    def compile(self, pattern: str, options: Any) -> Matcher:
        """Return the compiled expression."""


def compiled_pattern(settings: ExitSettings, engine: RegexEngine) -> Matcher | None:
    """Return `settings.pattern` compiled by `engine`; None without a pattern.

    Raises InvalidSetting for an expression that is empty, too long, too large, or invalid for RE2.
    """
    pattern = settings.pattern
    if pattern is None:
        return None
    if not 0 < len(pattern) <= MAX_CHARACTERS:
        shown = pattern if len(pattern) <= MAX_CHARACTERS else f"{pattern[:40]}..."
        raise InvalidSetting("pattern", shown, f"use 1 to {MAX_CHARACTERS} characters")
    return _compiled(engine, pattern)


@lru_cache(CACHE_SIZE)
def _compiled(engine: RegexEngine, pattern: str) -> Matcher:
    options = engine.Options()
    options.max_mem = MAX_BYTES
    options.log_errors = False  # keeps users' text out of the log
    options.never_capture = True  # faster, and only the existence of a match is used
    try:
        return engine.compile(pattern, options)
    except (engine.error, UnicodeEncodeError) as error:
        (cause, *_) = error.args
        fault = cause.decode(errors="replace") if isinstance(cause, bytes) else "invalid Unicode"
        remedy = f"use an RE2 expression, without backreferences and lookaround ({fault})"
        raise InvalidSetting("pattern", pattern, remedy) from error
