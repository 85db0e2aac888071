r"""Sameness of two answers, as one notion for the grader, the policies, the guard and the pages.

`compare` reads both answers in four steps: `notation` writes them in one spelling (units, spaces,
separators, fonts, unicode); `choices`, `clocks`, `numbers` and `relations` recognize what they
are; `containers` compares lists, tuples, sets, intervals and matrices element by element; what is
left are pairs of formulas, which a caller with a computer algebra system decides and which stay
undecided (None) without one. So the light notion (standard library only) and the full one never
contradict each other: the full one only adds verdicts where the light one has none.

A new spelling is a row in a table of `notation` or `units`; a new kind of answer is a module with
one function from two texts to a verdict or None, and a line in `compare`.
"""

from stepgrpo_core.sameness.choices import letter_of
from stepgrpo_core.sameness.compare import Sameness, compare, same_value, within_bounds
from stepgrpo_core.sameness.evaluated import is_imaginary, is_unevaluated
from stepgrpo_core.sameness.notation import normalize
from stepgrpo_core.sameness.numbers import read_number, shows

__all__ = [
    "Sameness",
    "compare",
    "is_imaginary",
    "is_unevaluated",
    "letter_of",
    "normalize",
    "read_number",
    "same_value",
    "shows",
    "within_bounds",
]
