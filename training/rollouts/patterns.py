"""The expressions of policy `pattern`, compiled by RE2: no other engine sees users' text."""

import re2

from stepgrpo_core import ExitSettings, Matcher, compiled_pattern

__all__ = ["matcher_of"]


def matcher_of(settings: ExitSettings) -> Matcher | None:
    """What policy `pattern` looks for; None if nothing is set. Raises InvalidSetting."""
    return compiled_pattern(settings, re2)
