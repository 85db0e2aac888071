r"""Sameness of formulas with sympy, for the trainer's grader and the server's quality guard.

`stepgrpo_core.sameness` decides what the standard library can and names the pairs of formulas
that it cannot; `compare_answers` adds those. sympy can compute for ever and fill any memory, so
it belongs into a process of its own: `prepare_process` sets that up and warms it, `within` limits
the processor time of one call.
"""

from stepgrpo_math.formulas import GoldUnread, compare_answers, same_formula
from stepgrpo_math.limits import TimeIsUp, prepare_process, within

__all__ = [
    "GoldUnread",
    "TimeIsUp",
    "compare_answers",
    "prepare_process",
    "same_formula",
    "within",
]
