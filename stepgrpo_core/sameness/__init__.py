r"""Equality of two answers, shared by the grader, the policies and the server's quality gate.

`compare` works in four steps: `notation` normalizes both answers (units, spaces, separators, fonts,
Unicode); `choices`, `clocks`, `numbers` and `relations` recognize their kind; `containers` compares
lists, tuples, sets, intervals and matrices element by element; the remaining pairs are formulas,
which a caller with a computer algebra system decides and which are undecided (None) without one. So
the comparison with formulas never contradicts the one without: it only decides more pairs.

To add a notation, add a row to a table of `notation` or `units`. To add a kind of answer, add a
module with one function that maps two texts to a verdict or None, and call it in `compare`.
"""

from stepgrpo_core.sameness.choices import letter_of
from stepgrpo_core.sameness.compare import Sameness, compare, same_value, within_bounds
from stepgrpo_core.sameness.evaluated import (
    is_copied,
    is_imaginary,
    is_stray_percent,
    is_unevaluated,
)
from stepgrpo_core.sameness.notation import normalize
from stepgrpo_core.sameness.numbers import read_number, shows

__all__ = [
    "Sameness",
    "compare",
    "is_copied",
    "is_imaginary",
    "is_stray_percent",
    "is_unevaluated",
    "letter_of",
    "normalize",
    "read_number",
    "same_value",
    "shows",
    "within_bounds",
]
