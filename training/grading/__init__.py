r"""Grading: verdicts on completions, given the gold answers.

`grader` is the entry point (or `function`, if a task names a grading function of the user). It
finds the box, decides without mathematics what `stepgrpo_core.sameness` can decide, and sends the
rest to `workers`, processes with a limit on processor time. They run `mathematics`, which compares
two formulas with math-verify and sympy.
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
