"""pass@k, majority votes over several samples of a question, and accuracy within a budget.

*pass@k* is the probability that one of k samples is correct, by the unbiased estimator of Chen et
al. 2021 (arXiv 2107.03374): 1 - C(n - c, k) / C(n, k) for c correct of n samples. *maj@n* tells
whether the most frequent answer of the n samples is correct (self-consistency, Wang et al. 2022,
arXiv 2203.11171); the grader decides which answers are the same, and a tie counts as the share of
correct answers in it. *Within N tokens* counts longer completions as wrong, as if they had been
generated with that limit.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from stepgrpo_core.savings.intervals import Estimate
from training.evaluation.intervals import share_interval
from training.evaluation.records import Record

__all__ = ["Budgets", "majority", "pass_at", "pass_at_k", "within", "within_of"]

Budgets = Mapping[str, Mapping[int, Estimate]]
"""Accuracy within budgets of tokens by contender."""

SHARES = 16  # the smallest budget is at least this part of the longest completion


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """Return the probability that one of `k` samples, drawn without replacement, is correct."""
    return 1 - math.comb(samples - correct, k) / math.comb(samples, k)


def pass_at(records: Iterable[Record]) -> dict[int, Estimate]:
    """Return pass@k for k of 2, 4, 8, ... and for all samples.

    Unscored samples are left out, and so are questions with fewer than k graded ones.
    """
    questions = _by_question(records)
    most = max(map(len, questions), default=0)
    sizes = [2**power for power in range(1, most.bit_length()) if 2**power < most]
    graded = [[each.correct for each in one if each.correct is not None] for one in questions]
    found = {}
    for k in [*sizes, most] if most > 1 else []:
        kept = [each for each in graded if len(each) >= k]
        if kept:
            values = np.array([pass_at_k(len(each), sum(each), k) for each in kept])
            found[k] = share_interval(values, sum(map(len, kept)) / k)
    return found


def majority(records: Iterable[Record]) -> Estimate | None:
    """Return the share of questions whose most frequent answer is correct.

    Unscored samples have no vote. None if questions do not have several samples, or if the records
    do not tell which answers are the same.
    """
    questions = _by_question(each for each in records if each.correct is not None)
    silent = any(each.formatted and each.same_as is None for found in questions for each in found)
    if silent or not any(len(found) > 1 for found in questions):
        return None
    return share_interval(np.array([_elected(found) for found in questions]), len(questions))


def within(records: Sequence[Record]) -> dict[int, Estimate]:
    """Return the accuracy within budgets of tokens: the powers of two below the longest completion,
    down to a sixteenth of it. Unscored completions are left out."""
    ordered = sorted(records, key=lambda each: (each.question, each.sample))
    graded = [each for each in ordered if each.correct is not None]
    longest = max((each.tokens for each in graded), default=0)
    budgets = [2**power for power in range(longest.bit_length()) if 2**power < longest]
    found = {}
    for budget in budgets:
        if budget * SHARES >= longest:
            scores = [
                [bool(each.correct) and each.tokens <= budget for each in one]
                for one in _by_question(graded)
            ]
            means = np.array([sum(each) / len(each) for each in scores])
            found[budget] = share_interval(means, len(graded))
    return found


def within_of(
    records: Mapping[str, Mapping[str, Sequence[Record]]], task: str, names: Iterable[str]
) -> Budgets:
    """Return `within` of each of the contenders `names` on a task."""
    return {name: within(records[name][task]) for name in names}


def _elected(samples: Sequence[Record]) -> float:
    """Return the share of correct answers among the most frequent ones."""
    votes = Counter(each.same_as for each in samples if each.same_as is not None)
    right = {each.same_as for each in samples if each.correct}
    first = [answer for answer, count in votes.items() if count == max(votes.values())]
    return sum(answer in right for answer in first) / max(len(first), 1)


def _by_question(records: Iterable[Record]) -> list[list[Record]]:
    found: dict[str, list[Record]] = {}
    for each in records:
        found.setdefault(each.question, []).append(each)
    return list(found.values())
