"""Users' regular expressions: RE2 alone compiles them, alike for the server and for rollouts."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import re2

import service.params.patterns
import training.rollouts.patterns
from stepgrpo_core import ExitSettings, InvalidSetting, compiled_pattern
from stepgrpo_core.patterns import CACHE_SIZE, _compiled
from stepgrpo_core.policies.pattern import WINDOW

ROOMS = [service.params.patterns.matcher_of, training.rollouts.patterns.matcher_of]
A_LINE = "a" * (WINDOW - 1) + "!"


def settings_with(pattern: str | None) -> ExitSettings:
    return ExitSettings(policy="pattern", pattern=pattern)


@pytest.mark.parametrize("matcher_of", ROOMS)
def test_both_rooms_compile_with_re2(matcher_of: Callable[..., Any]) -> None:
    matcher = matcher_of(settings_with(r"(?i)^done\W*$"))
    assert type(matcher) is type(re2.compile("x"))
    assert matcher.search("Done.")
    assert not matcher.search("not done")
    assert matcher_of(ExitSettings()) is None


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|a|aa)+$", "(a|aa)*b", "(.*){1,32}[bc]"])
def test_expressions_that_take_other_engines_forever_end(pattern: str) -> None:
    """Python's `re` needs some 2**1000 steps for each of them on this line."""
    assert re.compile(pattern)
    matcher = service.params.patterns.matcher_of(settings_with(pattern))
    assert matcher is not None
    assert not matcher.search(A_LINE)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (r"(a)\1", "invalid escape sequence"),
        ("(?=a)b", "lookaround.*invalid perl operator"),
        ("(?<!a)b", "lookaround.*invalid perl operator"),
        ("(", "missing"),
        ("[z-a]", "invalid character class range"),
        ("a{1001}", "invalid repetition"),
        (r"\pL{500}", "pattern too large"),
        ("[^z]{1000}z", "pattern too large"),
        ("(((a{30}){30}){30}){30}", "invalid repetition"),
        ("\ud800", "invalid Unicode"),
        ("", "use 1 to 512 characters"),
        ("x" * 513, r"x{40}\.\.\.' .*use 1 to 512 characters"),
    ],
)
def test_a_pattern_that_cannot_be_honored_names_value_and_remedy(
    pattern: str, message: str
) -> None:
    for matcher_of in ROOMS:
        with pytest.raises(InvalidSetting, match=rf"^pattern='.*{message}") as caught:
            matcher_of(settings_with(pattern))
        assert caught.value.name == "pattern"


def test_what_is_refused_is_not_written_anywhere(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InvalidSetting):
        compiled_pattern(settings_with("(secret"), re2)
    assert capfd.readouterr() == ("", "")


def test_compiled_expressions_are_kept_and_bounded() -> None:
    _compiled.cache_clear()
    first = compiled_pattern(settings_with("first"), re2)
    assert compiled_pattern(settings_with("first"), re2) is first
    for number in range(2 * CACHE_SIZE):
        compiled_pattern(settings_with(f"x{number}"), re2)
    assert _compiled.cache_info().currsize == CACHE_SIZE
