"""Calibration runs that are nearest to a truncated request (k nearest neighbors).

- Exit at a step boundary: each run is compared at its own step boundaries, by tokens, steps and
  confidence of the induced answer. Its remaining tokens from there are added to the tokens of the
  request before the exit.
- Exit elsewhere: only runs longer than the request at its exit count, because the request had not
  ended by then either. They are compared by their number of steps by then. A run at a step boundary
  differs from one in the middle of a step, so the two cases are not mixed.

Distances are relative in tokens and steps, so they do not depend on the length of the thinking.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["ExitPoint", "at_boundaries", "nearest", "under_way"]

FRACTION, MIN_NEIGHBORS, MAX_NEIGHBORS = 8, 30, 100
"""k is n/8, clamped to 30 to 100: fewer runs give wide intervals, more are unlike the request."""
MAX_DISTANCE = 1.0
"""Exclusive bound of the distance; half the tokens and half the steps reach it, for example."""

Confidences = Sequence[float | None]
Candidates = list[tuple[float, float]]
"""Pairs of the distance to the request and the completion tokens that it would have had."""


@dataclass(frozen=True, slots=True)
class ExitPoint:
    """Point at which the thinking of a request was truncated."""

    tokens: int
    """Completion tokens before the exit."""
    steps: int
    """Steps k before the exit, at least 1."""
    confidence: float | None = None
    """Confidence of the induced answer at the step boundary, in [0, 1]; None for an exit
    elsewhere."""


def at_boundaries(
    lengths: Sequence[int],
    starts: Sequence[Sequence[int]],
    confidences: Sequence[Confidences] | None,
    at: ExitPoint,
) -> Candidates:
    """Return every run at its step boundary nearest to `at`.

    `starts` are the tokens before each step marker of a run, ascending; `confidences` are those of
    an induced answer at each of them.
    """
    found: Candidates = []
    for index, (length, own) in enumerate(zip(lengths, starts, strict=True)):
        probed = confidences[index] if confidences is not None else None
        after = bisect_left(own, at.tokens)
        near = [
            (_distance(own, probed, step, at), at.tokens + length - own[step])
            for step in (after - 1, after)
            if 0 <= step < len(own)
        ]
        if near:
            found.append(min(near))
    return found


def under_way(lengths: Sequence[int], starts: Sequence[Sequence[int]], at: ExitPoint) -> Candidates:
    """Return every run longer than the request at its exit; `lengths` are ascending."""
    first = bisect_right(lengths, at.tokens)
    return [
        (abs(1 + bisect_left(own, at.tokens) - at.steps) / at.steps, length)
        for length, own in zip(lengths[first:], starts[first:], strict=True)
    ]


def nearest(candidates: Candidates) -> list[float]:
    """Return the tokens of the k nearest candidates, ties with the k-th included, ascending."""
    near = sorted(each for each in candidates if each[0] < MAX_DISTANCE)
    count = max(MIN_NEIGHBORS, min(len(candidates) // FRACTION, MAX_NEIGHBORS))
    last = near[min(count, len(near)) - 1][0] if near else 0.0
    return sorted(tokens for distance, tokens in near if distance <= last)


def _distance(
    starts: Sequence[int], confidences: Confidences | None, step: int, at: ExitPoint
) -> float:
    distance = abs(starts[step] - at.tokens) / max(at.tokens, 1)
    distance += abs(step + 1 - at.steps) / at.steps
    if confidences is None or at.confidence is None:
        return distance
    other = confidences[step]
    return distance + (MAX_DISTANCE if other is None else abs(other - at.confidence))
