"""Clock times ("3:45 PM") and ratios ("3:4")."""

import re
from fractions import Fraction

from stepgrpo_core.sameness.notation import unwrapped

__all__ = ["same_clock"]

_HALF = r"(?: ?([ap])\.? ?m\b\.?)?"
_CLOCK = re.compile(rf"([01]?[0-9]|2[0-4]): ?([0-5][0-9]){_HALF}", re.IGNORECASE)
_HOUR = re.compile(r"(1[0-2]|0?[1-9]) ?([ap])\.? ?m\b\.?", re.IGNORECASE)
_RATIO = re.compile(r"[0-9]{1,9}(?: ?: ?[0-9]{1,9})+")
Time = tuple[int, int, str | None]


def same_clock(gold: str, answer: str) -> bool | None:
    """Return whether two times or ratios are the same; None unless both are times or both are
    ratios.

    A time without AM or PM equals the time in either half of the day.
    """
    gold, answer = unwrapped(gold), unwrapped(answer)
    one, other = _time(gold), _time(answer)
    if one and other:
        return _same_time(one, other)
    ratios = _RATIO.fullmatch(gold), _RATIO.fullmatch(answer)
    return _proportional(gold, answer) if all(ratios) else None


def _time(text: str) -> Time | None:
    if found := _CLOCK.fullmatch(text):
        return int(found[1]), int(found[2]), found[3] and found[3].lower()
    if found := _HOUR.fullmatch(text):
        return int(found[1]), 0, found[2].lower()
    return None


def _same_time(one: Time, other: Time) -> bool:
    if one[2] and other[2]:
        return (one[0] % 12, *one[1:]) == (other[0] % 12, *other[1:])
    if one[2] is None and other[2] is None:
        return one[:2] == other[:2]
    half, plain = (one, other) if one[2] else (other, one)
    hours = {half[0] % 12 + (12 if half[2] == "p" else 0), half[0]}
    return plain[1] == half[1] and plain[0] in hours


def _proportional(gold: str, answer: str) -> bool:
    left = [int(each) for each in gold.split(":")]
    right = [int(each) for each in answer.split(":")]
    if len(left) != len(right) or not left[0] or not right[0]:
        return left == right
    factor = Fraction(left[0], right[0])
    return all(one == factor * other for one, other in zip(left, right, strict=True))
