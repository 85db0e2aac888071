"""Equality of formulas with sympy, for the trainer's grader and the server's quality gate.

`stepgrpo_core.sameness` leaves pairs of formulas undecided; `compare_answers` decides them. sympy
can use unlimited time and memory, so it must run in a process of its own: `prepare_process`
configures and warms up that process, `within` limits the CPU time of one call.
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
