r"""Formulas that were left standing: arithmetic on numbers that the answer should have done.

A question's own formula equals its answer, so a grader by value pays for copying it. An answer is
unevaluated when it holds such arithmetic and the gold holds none. Roots, powers of letters,
fractions, :math:`\pi` and e stand for themselves (``3\sqrt{2}``, ``\frac{\pi}{4}``, ``e^2``), and
complex numbers are left alone.
"""

import re
from math import isqrt

from stepgrpo_core.sameness.numbers import Number, PLACES, read_number
from stepgrpo_core.sameness.scan import split_top

__all__ = ["is_imaginary", "is_unevaluated"]

_IMAGINARY = re.compile(r"(?<![a-zA-Z\\{])i(?![a-zA-Z])|(?<=\{)i(?![a-zA-Z])|\\(?:im|i)math")
_IRRATIONAL = re.compile(
    r"\\(?:sqrt|pi|ln|log|sin|cos|tan|arc[a-z]+|exp)|(?<![a-zA-Z\\])e(?![a-zA-Z])|\^"
)
_DONE = re.compile(
    r"[0-9]!|\\binom\{[0-9]+\}\{[0-9]+\}|(?<![0-9_^{.])[0-9]+\^(?:[0-9]|\{[0-9]+\})"
    r"|\\log_\{?[0-9]+\}?[({ ]*[0-9]|\\(?:sum|prod|gcd|lcm|mod|int)(?![a-zA-Z])|\|-?[0-9.]+\|"
    r"|\\lfloor ?-?[0-9]|\\lceil ?-?[0-9]|[0-9)] ?\\(?:times|cdot|div) ?-?\(?[0-9]+(?!\^)"
    r"|[0-9] ?\* ?[0-9]|\([0-9]+\)\(-?[0-9]+\)"
)
_ROOT = re.compile(r"\\sqrt\{([0-9]{1,40})\}")
_GROUP = re.compile(r"[{(\[]([^{}()\[\]]*)[})\]]")
_SUM = frozenset("+-")


def is_imaginary(text: str) -> bool:
    """Whether a normalized formula holds the imaginary unit."""
    return _IMAGINARY.search(text) is not None


def is_unevaluated(gold: str, answer: str) -> bool:
    """Whether a formula of the gold's value holds arithmetic that the gold does not."""
    if is_imaginary(answer) or read_number(answer):
        return False
    number = read_number(gold)
    if number is None:
        return _has_arithmetic(answer) and not _has_arithmetic(gold)
    return not (_is_rounded(number) and _IRRATIONAL.search(answer))


def _is_rounded(number: Number) -> bool:
    return number.places is not None and number.places >= PLACES


def _has_arithmetic(text: str) -> bool:
    if _DONE.search(text) or _has_square(text):
        return True
    return any(_sums(part) for part in _groups(text))


def _has_square(text: str) -> bool:
    return any(isqrt(int(root)) ** 2 == int(root) for root in _ROOT.findall(text))


def _groups(text: str) -> list[str]:
    """The formula and what stands in its innermost brackets."""
    return [text, *_GROUP.findall(text)]


def _sums(text: str) -> bool:
    """Whether two terms of one sum are plain numbers."""
    terms = [term for term in split_top(text, _SUM)[0] if term]
    return sum(read_number(term) is not None for term in terms) > 1
