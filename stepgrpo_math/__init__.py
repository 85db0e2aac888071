"""Equality of formulas with sympy, for the trainer's grader and the server's quality gate.

`stepgrpo_core.sameness` leaves pairs of formulas undecided; `compare_answers` decides them. sympy
can use unlimited time and memory, so it must run in a process of its own: `prepare_process`
configures and warms up that process, `run_with_cpu_limit` limits the CPU time of one call.
"""

from stepgrpo_math.formulas import UnparsableGold, compare_answers, same_formula
from stepgrpo_math.limits import CpuTimeExceeded, prepare_process, run_with_cpu_limit

__all__ = [
    "CpuTimeExceeded",
    "UnparsableGold",
    "compare_answers",
    "prepare_process",
    "run_with_cpu_limit",
    "same_formula",
]
