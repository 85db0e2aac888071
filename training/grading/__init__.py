r"""Grading: completions and golds in, verdicts out.

`grader` is the door: it finds the box, decides what `stepgrpo_core.sameness` can decide without
mathematics, and sends the rest to `workers`, processes with a limit of processor time.
`mathematics` runs there and compares two formulas with math-verify and sympy.
"""

from training.grading.grader import Grader, Verdict, count_unscored
from training.grading.workers import GraderBroken

__all__ = ["Grader", "GraderBroken", "Verdict", "count_unscored"]
