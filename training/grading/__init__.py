r"""Grading: completions and golds in, verdicts out.

`grader` is the door (`function` stands there instead where a task names a function of the user's):
it finds the box, decides what `stepgrpo_core.sameness` can decide without
mathematics, and sends the rest to `workers`, processes with a limit of processor time.
`mathematics` runs there and compares two formulas with math-verify and sympy.
"""

from training.grading.function import FunctionGrader, Grades, grader_of
from training.grading.grader import Grader, Verdict, count_unscored
from training.grading.workers import GraderBroken

__all__ = [
    "FunctionGrader",
    "Grader",
    "GraderBroken",
    "Grades",
    "Verdict",
    "count_unscored",
    "grader_of",
]
