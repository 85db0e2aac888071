"""The demo world: chains of additions and subtractions, and traces that re-check them too often.

A *problem* is a two-digit start and a chain of one-digit operations whose intermediate values stay
within 10 to 99. A *trace* solves it like an overthinking model. An *attempt* computes every
operation, may pause half-way with a marker, and may forget a carry. Attempts are repeated until two
in a row agree, and then some more without need. Later attempts have more errors than the first, and
the last one gives the answer: errors of the first attempt are often corrected, and a correct answer
is sometimes lost. *Hasty* attempts write several operations per line, which is shorter and which a
small model more often gets wrong. So there are two ways to save tokens: omit unnecessary attempts,
which costs no accuracy, or make hasty ones, which does. Some traces are closed early at a step
boundary, in the two formats that an exit uses, and always with the true answer. This calibrates the
confidence of an induced answer: low while the derivation is incomplete, high after it.
"""

import hashlib
import random
from dataclasses import dataclass
from typing import Literal

Split = Literal["train", "validation", "test"]
Level = Literal["easy", "medium", "hard"]

LEVELS: dict[Level, tuple[int, int]] = {"easy": (2, 3), "medium": (4, 5), "hard": (6, 8)}
"""Minimum and maximum number of operations, both inclusive."""

LOW, HIGH = 10, 99
FORGOTTEN_CARRY = 0.04  # share of operations with carry or borrow, in the first attempt
FORGOTTEN_IN_RECHECK = 0.09  # the same in later attempts
MISCOUNT = 0.005  # share of operations that are off by one
HESITATION = 0.45  # share of attempts with a marker half-way
HASTY = 0.5  # share of first attempts
HASTY_RECHECK = 0.25  # share of later attempts
JUMP = 2  # operations per line of a hasty attempt
EARLY_CLOSE = 0.2  # share of traces closed at a random step boundary with the true answer
DIRECT = 0.03  # share of traces without thinking (enable_thinking=False)
EXTRA_ATTEMPTS = (1, 1, 1, 2, 2, 2)  # after two attempts agree, drawn uniformly

CHECK_AGAIN = (
    "Wait, let me check again.\n",
    "Wait, is that right? Once more.\n",
    "Alternatively, start from the beginning.\n",
)
GO_ON = ("Wait, there is more.\n", "Wait, go on.\n")
INDUCE = "\n**Final Answer**\n\\boxed"
CLOSE = "\n</think>\n\n"
NO_THINKING = "<think>\n\n</think>\n\n"  # from the chat template with enable_thinking=False


@dataclass(frozen=True, slots=True)
class Problem:
    """A start and signed one-digit operations, evaluated from left to right."""

    start: int
    operations: tuple[int, ...]

    @property
    def expression(self) -> str:
        """Return the chain as text, for example ``47+8-5``."""
        return f"{self.start}" + "".join(f"{op:+d}" for op in self.operations)

    @property
    def answer(self) -> int:
        """Return the true value of the chain."""
        return self.start + sum(self.operations)

    @property
    def prompt(self) -> str:
        """Return the user message."""
        return (
            f"Compute {self.expression}. "
            "Reason step by step and put the final answer in \\boxed{}."
        )

    @property
    def split(self) -> Split:
        """Return the split of the problem, by its hash; so the splits are disjoint."""
        bucket = hashlib.sha256(self.expression.encode()).digest()[0]
        return "train" if bucket < 224 else "validation" if bucket < 240 else "test"

    @property
    def level(self) -> Level:
        """Return the difficulty by the number of operations."""
        count = len(self.operations)
        return next(level for level, (low, high) in LEVELS.items() if low <= count <= high)


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a trace, tokenized separately; it has loss if `trained` is true."""

    text: str
    trained: bool = True


def sample_problem(rng: random.Random, split: Split, level: Level | None = None) -> Problem:
    """Draw one problem of `split`; if `level` is None, the level is uniform."""
    low, high = LEVELS[level if level else rng.choice(tuple(LEVELS))]
    while True:
        problem = _chain(rng, rng.randint(low, high))
        if problem.split == split:
            return problem


def sample_problems(
    seed: int, split: Split, count: int, level: Level | None = None
) -> list[Problem]:
    """Return `count` different problems, deterministic in the arguments."""
    rng = random.Random(f"{split}:{seed}:{level}")
    problems: dict[Problem, None] = {}
    while len(problems) < count:
        problems[sample_problem(rng, split, level)] = None
    return list(problems)


def sample_trace(problem: Problem, rng: random.Random, *, hasty: bool = False) -> list[Piece]:
    """Return one overthinking completion of `problem`, without its header and end of turn.

    Hasty attempts occur only if `hasty` is true.
    """
    if rng.random() < DIRECT:
        return [Piece(NO_THINKING, trained=False), _answer(problem.answer)]
    steps = _steps(problem, rng, hasty=hasty)
    if rng.random() < EARLY_CLOSE and len(steps) > 1:
        cut = rng.randrange(1, len(steps))
        opened = "<think>\n" + "\n\n".join(step.text for step in steps[:cut]) + "\n\n"
        # The closing text after an unfinished derivation is in the context, but has no loss.
        trained = steps[cut - 1].result is not None
        return [Piece(opened), *_closing(problem.answer, rng, trained=trained)]
    thinking = "<think>\n" + "\n\n".join(step.text for step in steps)
    result = steps[-1].result
    assert result is not None
    return [Piece(thinking), *_closing(result, rng, trained=True)]


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


def _closing(value: int, rng: random.Random, *, trained: bool) -> list[Piece]:
    if rng.random() < 0.5:
        return [Piece(CLOSE, trained), _answer(value)]
    return [Piece(INDUCE, trained), Piece(f"{{{value}}}" + CLOSE), _answer(value)]


@dataclass(frozen=True, slots=True)
class _Step:
    text: str
    result: int | None  # None while the attempt is not finished


def _steps(problem: Problem, rng: random.Random, *, hasty: bool) -> list[_Step]:
    """Return the steps of a whole trace."""
    steps: list[_Step] = []
    results: list[int] = []
    while len(results) < 2 or results[-1] != results[-2]:
        results.append(_add_attempt(steps, problem, rng, hasty=hasty))
    for _ in range(rng.choice(EXTRA_ATTEMPTS)):
        _add_attempt(steps, problem, rng, hasty=hasty)
    return steps


def _add_attempt(steps: list[_Step], problem: Problem, rng: random.Random, *, hasty: bool) -> int:
    """Append one attempt, in one or two steps; return its result."""
    opening = rng.choice(CHECK_AGAIN) if steps else ""
    jump = JUMP if hasty and rng.random() < (HASTY_RECHECK if steps else HASTY) else 1
    forgotten = FORGOTTEN_IN_RECHECK if steps else FORGOTTEN_CARRY
    lines, result = _attempt(problem, rng, forgotten, jump)
    if len(lines) > 1 and rng.random() < HESITATION:
        cut = rng.randrange(1, len(lines))
        steps.append(_Step(opening + "\n".join(lines[:cut]), None))
        opening, lines = rng.choice(GO_ON), lines[cut:]
    steps.append(_Step(opening + "\n".join(lines), result))
    return result


def _attempt(
    problem: Problem, rng: random.Random, forgotten: float, jump: int
) -> tuple[list[str], int]:
    """Return lines of `jump` operations each, and the result."""
    value, lines = problem.start, []
    for first in range(0, len(problem.operations), jump):
        line = f"{value}"
        for op in problem.operations[first : first + jump]:
            line += f"{op:+d}"
            value = _with_error(value, op, rng, forgotten)
        lines.append(f"{line}={value}")
    return lines, value


def _with_error(value: int, op: int, rng: random.Random, forgotten: float) -> int:
    """Return the result of one operation, with random errors."""
    true = value + op
    carries = true // 10 != value // 10
    result = true
    if carries and rng.random() < forgotten:
        result = true - 10 if op > 0 else true + 10
    elif rng.random() < MISCOUNT:
        result = true + rng.choice((-1, 1))
    return result if LOW <= result <= HIGH else true
