"""The demo world: chains of additions and subtractions, and traces that re-check them too often.

A *problem* is a two-digit start and a chain of one-digit operations whose running value stays
within 10..99. A *trace* solves it the way an overthinking model does: a pass works out every
operation, may hesitate half-way, and may forget a carry; passes repeat until two in a row agree
and then go on for no reason. Re-checks are more careless than the first pass, and the answer is
what the last pass says: a first slip is often found, and a right answer sometimes talked away.
Some passes are *hasty*: several operations in one line, which is shorter, and which a small model
gets wrong more often. So there are two ways to save tokens, one that costs nothing
(no needless passes) and one that costs accuracy (hasty ones). Some traces are closed early at a
step boundary, in exactly the two forms that an exit uses, and always with the true answer: that
is what gives the confidence of a trial answer a meaning (low while the derivation is incomplete,
high after it).
"""

import hashlib
import random
from dataclasses import dataclass
from typing import Literal

Split = Literal["train", "validation", "test"]
Level = Literal["easy", "medium", "hard"]

LEVELS: dict[Level, tuple[int, int]] = {"easy": (2, 3), "medium": (4, 5), "hard": (6, 8)}
"""Number of operations, from and to, both included."""

LOW, HIGH = 10, 99
FORGOTTEN_CARRY = 0.04  # of the operations that carry or borrow, in the first pass
FORGOTTEN_IN_RECHECK = 0.09  # in every later pass
MISCOUNT = 0.005  # of all operations: off by one
HESITATION = 0.45  # of the passes: a marker half-way, before the derivation is complete
HASTY = 0.5  # of the first passes
HASTY_RECHECK = 0.25  # of the later ones
JUMP = 2  # operations in a line of a hasty pass
EARLY_CLOSE = 0.2  # of the traces: closed at a random step boundary with the true answer
DIRECT = 0.03  # of the traces: no thinking at all (enable_thinking=False)
NEEDLESS_PASSES = (1, 1, 1, 2, 2, 2)  # after two passes agreed, drawn uniformly

CHECK_AGAIN = (
    "Wait, let me check again.\n",
    "Wait, is that right? Once more.\n",
    "Alternatively, start from the beginning.\n",
)
GO_ON = ("Wait, there is more.\n", "Wait, go on.\n")
INDUCE = "\n**Final Answer**\n\\boxed"
CLOSE = "\n</think>\n\n"
NO_THINKING = "<think>\n\n</think>\n\n"  # what the chat template puts for enable_thinking=False


@dataclass(frozen=True, slots=True)
class Problem:
    """`start` followed by signed one-digit `operations`, worked from left to right."""

    start: int
    operations: tuple[int, ...]

    @property
    def expression(self) -> str:
        """The chain as text, for example ``47+8-5``."""
        return f"{self.start}" + "".join(f"{op:+d}" for op in self.operations)

    @property
    def answer(self) -> int:
        """The true value of the chain."""
        return self.start + sum(self.operations)

    @property
    def prompt(self) -> str:
        """The user message."""
        return (
            f"Compute {self.expression}. "
            "Reason step by step and put the final answer in \\boxed{}."
        )

    @property
    def split(self) -> Split:
        """Where the problem belongs, by its hash: no problem can be in two splits."""
        bucket = hashlib.sha256(self.expression.encode()).digest()[0]
        return "train" if bucket < 224 else "validation" if bucket < 240 else "test"

    @property
    def level(self) -> Level:
        """Difficulty by the number of operations."""
        count = len(self.operations)
        return next(level for level, (low, high) in LEVELS.items() if low <= count <= high)


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a trace, tokenised on its own; `trained` says whether it carries loss."""

    text: str
    trained: bool = True


def sample_problem(rng: random.Random, split: Split, level: Level | None = None) -> Problem:
    """Draw one problem of `split`; `level` None draws the level uniformly."""
    low, high = LEVELS[level if level else rng.choice(tuple(LEVELS))]
    while True:
        problem = _chain(rng, rng.randint(low, high))
        if problem.split == split:
            return problem


def sample_problems(
    seed: int, split: Split, count: int, level: Level | None = None
) -> list[Problem]:
    """`count` different problems, always the same for the same arguments."""
    rng = random.Random(f"{split}:{seed}:{level}")
    problems: dict[Problem, None] = {}
    while len(problems) < count:
        problems[sample_problem(rng, split, level)] = None
    return list(problems)


def sample_trace(problem: Problem, rng: random.Random, *, hasty: bool = False) -> list[Piece]:
    """One overthinking completion of `problem`, from after ``assistant\\n`` to before the end.

    Only with `hasty` are there hasty passes.
    """
    if rng.random() < DIRECT:
        return [Piece(NO_THINKING, trained=False), _answer(problem.answer)]
    steps = _steps(problem, rng, hasty=hasty)
    if rng.random() < EARLY_CLOSE and len(steps) > 1:
        cut = rng.randrange(1, len(steps))
        opened = "<think>\n" + "\n\n".join(step.text for step in steps[:cut]) + "\n\n"
        # Closing an unfinished derivation is shown, but never taught as something to begin.
        taught = steps[cut - 1].result is not None
        return [Piece(opened), *_closing(problem.answer, rng, taught=taught)]
    thinking = "<think>\n" + "\n\n".join(step.text for step in steps)
    result = steps[-1].result
    assert result is not None
    return [Piece(thinking), *_closing(result, rng, taught=True)]


def _chain(rng: random.Random, length: int) -> Problem:
    value = start = rng.randint(LOW, HIGH)
    operations = []
    for _ in range(length):
        choices = [op for op in range(-9, 10) if op and LOW <= value + op <= HIGH]
        operations.append(rng.choice(choices))
        value += operations[-1]
    return Problem(start, tuple(operations))


def _answer(value: int) -> Piece:
    return Piece(f"The final answer is \\boxed{{{value}}}.")


def _closing(value: int, rng: random.Random, *, taught: bool) -> list[Piece]:
    if rng.random() < 0.5:
        return [Piece(CLOSE, taught), _answer(value)]
    return [Piece(INDUCE, taught), Piece(f"{{{value}}}" + CLOSE), _answer(value)]


@dataclass(frozen=True, slots=True)
class _Step:
    text: str
    result: int | None  # None while the pass is not finished


def _steps(problem: Problem, rng: random.Random, *, hasty: bool) -> list[_Step]:
    """The steps of a whole trace."""
    steps: list[_Step] = []
    results: list[int] = []
    while len(results) < 2 or results[-1] != results[-2]:
        results.append(_add_pass(steps, problem, rng, hasty=hasty))
    for _ in range(rng.choice(NEEDLESS_PASSES)):
        _add_pass(steps, problem, rng, hasty=hasty)
    return steps


def _add_pass(steps: list[_Step], problem: Problem, rng: random.Random, *, hasty: bool) -> int:
    """Work the problem out once, in one step or two; return the result."""
    opening = rng.choice(CHECK_AGAIN) if steps else ""
    jump = JUMP if hasty and rng.random() < (HASTY_RECHECK if steps else HASTY) else 1
    forgotten = FORGOTTEN_IN_RECHECK if steps else FORGOTTEN_CARRY
    lines, result = _pass(problem, rng, forgotten, jump)
    if len(lines) > 1 and rng.random() < HESITATION:
        cut = rng.randrange(1, len(lines))
        steps.append(_Step(opening + "\n".join(lines[:cut]), None))
        opening, lines = rng.choice(GO_ON), lines[cut:]
    steps.append(_Step(opening + "\n".join(lines), result))
    return result


def _pass(
    problem: Problem, rng: random.Random, forgotten: float, jump: int
) -> tuple[list[str], int]:
    """Lines of `jump` operations each, and the result."""
    value, lines = problem.start, []
    for first in range(0, len(problem.operations), jump):
        line = f"{value}"
        for op in problem.operations[first : first + jump]:
            line += f"{op:+d}"
            value = _slip(value, op, rng, forgotten)
        lines.append(f"{line}={value}")
    return lines, value


def _slip(value: int, op: int, rng: random.Random, forgotten: float) -> int:
    """The result of one operation as a careless worker writes it."""
    true = value + op
    carries = true // 10 != value // 10
    slipped = true
    if carries and rng.random() < forgotten:
        slipped = true - 10 if op > 0 else true + 10
    elif rng.random() < MISCOUNT:
        slipped = true + rng.choice((-1, 1))
    return slipped if LOW <= slipped <= HIGH else true
