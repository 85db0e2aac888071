"""Expressions of policy pattern, compiled by RE2, which matches in linear time."""

import re2

from stepgrpo_core import ExitSettings, Matcher, compiled_pattern

__all__ = ["matcher_of"]


def matcher_of(settings: ExitSettings) -> Matcher | None:
    """Return the compiled expression; None if none is set. Raises InvalidSetting."""
    return compiled_pattern(settings, re2)
