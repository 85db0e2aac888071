"""Compiles the expression of policy `pattern` with RE2, which runs in linear time."""

import re2

from stepgrpo_core import ExitSettings, Matcher, compiled_pattern

__all__ = ["matcher_of"]


def matcher_of(settings: ExitSettings) -> Matcher | None:
    """Return the matcher of policy `pattern`; None if no pattern is set. Raises InvalidSetting."""
    return compiled_pattern(settings, re2)
