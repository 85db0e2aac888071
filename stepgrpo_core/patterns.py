"""Regular expressions of users, as a `Matcher` for the policy ``pattern``.

They are compiled by RE2, which takes time linear in the text whatever the expression; Python's
`re` can take exponential time. The core is standard library only, so drivers pass the engine in,
and every driver compiles alike. Of the pattern's size the search costs a factor, so both are
bounded: with the limits below no search of a line's last 1 024 characters (`PatternPolicy`) took
more than 20 ms on one core, and usual expressions take microseconds.
"""

from collections.abc import Hashable
from functools import lru_cache
from typing import Any, Protocol

from stepgrpo_core.errors import InvalidSetting
from stepgrpo_core.policies import ExitSettings, Matcher

__all__ = ["MAX_CHARACTERS", "RegexEngine", "compiled_pattern"]

MAX_CHARACTERS = 512
MAX_BYTES = 2**16
"""Of one compiled expression, its cache of states included."""
CACHED = 128  # expressions


class RegexEngine(Hashable, Protocol):
    """What is used of the module ``re2`` (google-re2)."""

    @property
    def error(self) -> type[Exception]:
        """Raised for an expression that it does not take."""

    def Options(self) -> Any:  # noqa: N802 - its name there
        """Options with their defaults."""

    def compile(self, pattern: str, options: Any) -> Matcher:
        """The compiled expression."""


def compiled_pattern(settings: ExitSettings, engine: RegexEngine) -> Matcher | None:
    """`settings.pattern` compiled by `engine`; None without one.

    Raises InvalidSetting for an expression that is empty, too long or too large, or that RE2 does
    not know.
    """
    pattern = settings.pattern
    if pattern is None:
        return None
    if not 0 < len(pattern) <= MAX_CHARACTERS:
        shown = pattern if len(pattern) <= MAX_CHARACTERS else f"{pattern[:40]}..."
        raise InvalidSetting("pattern", shown, f"use 1 to {MAX_CHARACTERS} characters")
    return _compiled(engine, pattern)


@lru_cache(CACHED)
def _compiled(engine: RegexEngine, pattern: str) -> Matcher:
    options = engine.Options()
    options.max_mem = MAX_BYTES
    options.log_errors = False  # it would write users' text to the log
    options.never_capture = True  # whether it matches is all that counts, and that is faster
    try:
        return engine.compile(pattern, options)
    except (engine.error, UnicodeEncodeError) as error:
        (cause, *_) = error.args
        said = cause.decode(errors="replace") if isinstance(cause, bytes) else "not valid Unicode"
        remedy = f"use a regular expression of RE2, without backreferences and lookaround ({said})"
        raise InvalidSetting("pattern", pattern, remedy) from error
