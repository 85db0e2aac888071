r"""Detection of unevaluated answers, which contain arithmetic on plain numbers.

The formula in a question has the value of its answer, so a grader that compares values would reward
copying it. An answer is unevaluated if it contains arithmetic and the gold answer does not. Roots,
powers of letters, fractions, :math:`\pi` and e do not count as arithmetic (``3\sqrt{2}``,
``\frac{\pi}{4}``, ``e^2``); in complex numbers only arithmetic on plain numbers counts.
"""

import re
from functools import lru_cache
from math import isqrt

from stepgrpo_core.sameness.notation import normalize
from stepgrpo_core.sameness.numbers import PLACES, Number, read_number
from stepgrpo_core.sameness.relations import name_and_parts
from stepgrpo_core.sameness.scan import split_top

__all__ = ["is_copied", "is_imaginary", "is_stray_percent", "is_unevaluated"]

_IMAGINARY = re.compile(r"(?<![a-zA-Z\\{])i(?![a-zA-Z])|(?<=\{)i(?![a-zA-Z])|\\(?:im|i)math")
_IRRATIONAL = re.compile(
    r"\\(?:sqrt|pi|ln|log|sin|cos|tan|arc[a-z]+|exp)|(?<![a-zA-Z\\])e(?![a-zA-Z])|\^"
)
_ARITHMETIC = {
    "factorial": r"[0-9]!",
    "binomial": r"\\binom\{[0-9]+\}\{[0-9]+\}",
    "power": r"(?<![0-9_^{.])[0-9]+\^(?:[0-9]|\{[0-9]+\})",
    "logarithm": r"\\log_\{?[0-9]+\}?[({ ]*[0-9]",
    "function": r"\\(?:sum|prod|gcd|lcm|mod|int)(?![a-zA-Z])|\|[-+0-9.i]+\|",
    "rounding": r"\\l(?:floor|ceil) ?-?[0-9]",
    "product": r"[0-9)] ?(?:\\times|\\cdot|\*) ?-?\(?[0-9]+(?![0-9]*\^)|\([0-9]+\)\(-?[0-9]+\)",
}
_PATTERNS = {name: re.compile(pattern) for name, pattern in _ARITHMETIC.items()}
_OPERATION = re.compile(r".[-+*/^!]|\\(?:frac|sqrt|cdot|times|log|ln|binom|sum|int)|\)\(")
_ROOT = re.compile(r"\\sqrt\{([0-9]{1,40})\}")
_GROUP = re.compile(r"[{(\[]([^{}()\[\]]*)[})\]]")
_SUM = frozenset("+-")
_PERCENT = re.compile("%|per ?cent|百分|prozent|por ?cent|por ciento|процент", re.IGNORECASE)


def is_imaginary(text: str) -> bool:
    """Return whether a normalized formula contains the imaginary unit."""
    return _IMAGINARY.search(text) is not None


def is_copied(question: str, gold: str, answer: str) -> bool:
    """Return whether an answer is a formula of the question that the gold answer writes otherwise.

    The texts are not normalized. Numbers and formulas without an operation never count as copies.
    """
    formula, wanted = _value(answer), _value(gold)
    if formula == wanted or read_number(formula) or not _OPERATION.search(formula):
        return False
    return formula in _squeezed(question)


def is_stray_percent(question: str, gold: str, answer: str) -> bool:
    """Return whether an answer in percent has the gold's number, although its question speaks of no
    percentage: ``12%`` would be right for 12 and for 0.12, whichever is meant."""
    own, wanted = read_number(normalize(answer)), read_number(normalize(gold))
    if own is None or wanted is None or not own.percent or wanted.percent:
        return False
    return own.value == wanted.value != 0 and not _PERCENT.search(question)


def _value(text: str) -> str:
    return "".join(name_and_parts(normalize(text))[1][-1].split())


@lru_cache(maxsize=64)
def _squeezed(question: str) -> str:
    return "".join(normalize(question).split())


def is_unevaluated(gold: str, answer: str) -> bool:
    """Return whether a formula equal to the gold answer has arithmetic that the gold does not."""
    if read_number(answer):
        return False
    number = None if is_imaginary(answer) else read_number(gold)
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
    """Return whether two terms of one sum, here or in the innermost brackets, are plain numbers."""
    groups = [text, *_GROUP.findall(text)]
    sums = [split_top(group, _SUM)[0] for group in groups]
    return any(sum(read_number(term) is not None for term in terms) > 1 for terms in sums)
