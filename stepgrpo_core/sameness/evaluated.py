r"""Formulas that were left standing: arithmetic on numbers that the answer should have done.

A question's own formula equals its answer, so a grader by value pays for copying it. An answer is
unevaluated when it holds such arithmetic and the gold holds none. Roots, powers of letters,
fractions, :math:`\pi` and e stand for themselves (``3\sqrt{2}``, ``\frac{\pi}{4}``, ``e^2``), and
complex numbers are left alone.
"""

import re
from math import isqrt

from stepgrpo_core.sameness.numbers import PLACES, Number, read_number
from stepgrpo_core.sameness.scan import split_top

__all__ = ["is_imaginary", "is_unevaluated"]

_IMAGINARY = re.compile(r"(?<![a-zA-Z\\{])i(?![a-zA-Z])|(?<=\{)i(?![a-zA-Z])|\\(?:im|i)math")
_IRRATIONAL = re.compile(
    r"\\(?:sqrt|pi|ln|log|sin|cos|tan|arc[a-z]+|exp)|(?<![a-zA-Z\\])e(?![a-zA-Z])|\^"
)
_ARITHMETIC = {
    "factorial": r"[0-9]!",
    "binomial": r"\\binom\{[0-9]+\}\{[0-9]+\}",
    "power": r"(?<![0-9_^{.])[0-9]+\^(?:[0-9]|\{[0-9]+\})",
    "logarithm": r"\\log_\{?[0-9]+\}?[({ ]*[0-9]",
    "function": r"\\(?:sum|prod|gcd|lcm|mod|int)(?![a-zA-Z])|\|-?[0-9.]+\|",
    "rounding": r"\\l(?:floor|ceil) ?-?[0-9]",
    "product": r"[0-9)] ?(?:\\times|\\cdot|\*) ?-?\(?[0-9]+(?![0-9]*\^)|\([0-9]+\)\(-?[0-9]+\)",
}
_PATTERNS = {name: re.compile(pattern) for name, pattern in _ARITHMETIC.items()}
_ROOT = re.compile(r"\\sqrt\{([0-9]{1,40})\}")
_GROUP = re.compile(r"[{(\[]([^{}()\[\]]*)[})\]]")
_SUM = frozenset("+-")


def is_imaginary(text: str) -> bool:
    """Whether a normalized formula holds the imaginary unit."""
    return _IMAGINARY.search(text) is not None


def is_unevaluated(gold: str, answer: str) -> bool:
    """Whether a formula of the gold's value holds arithmetic that the gold does not."""
    if read_number(answer):
        return False
    if is_imaginary(answer):
        return _sums(answer) and not _sums(gold)
    number = read_number(gold)
    if number is None:
        return bool(_arithmetic(answer) - _arithmetic(gold))
    return not (_is_rounded(number) and _IRRATIONAL.search(answer))


def _is_rounded(number: Number) -> bool:
    return number.places is not None and number.places >= PLACES


def _arithmetic(text: str) -> set[str]:
    """Return the kinds of arithmetic on plain numbers in a formula."""
    found = {name for name, pattern in _PATTERNS.items() if pattern.search(text)}
    if any(isqrt(int(root)) ** 2 == int(root) for root in _ROOT.findall(text)):
        found.add("root")
    if _sums(text):
        found.add("sum")
    return found


def _sums(text: str) -> bool:
    """Whether two terms of one sum, here or in the innermost brackets, are plain numbers."""
    groups = [text, *_GROUP.findall(text)]
    sums = [split_top(group, _SUM)[0] for group in groups]
    return any(sum(read_number(term) is not None for term in terms) > 1 for terms in sums)
