"""Which calibration runs are like a request that was cut.

- At a step boundary: the runs are looked at where steps of theirs began, at as many tokens, as many
  steps and as confident a trial as can be had. What they went on for from there is added to the
  tokens before the cut.
- Elsewhere: those that were longer than the request when it was cut, since it had not ended by then
  either, and of them those with as many steps by then as can be had. A run at a step boundary is
  another thing than one in the middle of a step, so the two are not mixed.

Distances are relative in tokens and steps, so they mean the same for long and short thinking.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Cut", "at_boundaries", "nearest", "under_way"]

PART, FEWEST, MOST = 8, 30, 100
"""An eighth of the runs is asked, 30 to 100: with fewer intervals get wide, with more the runs are
unlike the request."""
FARTHEST = 1.0
"""Of distances, itself not included: half the tokens and half the steps, for example."""

Confidences = Sequence[float | None]
Candidates = list[tuple[float, float]]
"""Distance from the request, and completion tokens that it would have had."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Where a request was cut."""

    tokens: int
    """Of the completion, before the cut."""
    steps: int
    """k by then, at least 1."""
    confidence: float | None = None
    """Of the trial answer at the step boundary where it was cut, in [0, 1]; None: it was cut
    elsewhere."""


def at_boundaries(
    lengths: Sequence[int],
    starts: Sequence[Sequence[int]],
    confidences: Sequence[Confidences] | None,
    cut: Cut,
) -> Candidates:
    """Every run of these lengths where a step began next to `cut`; `starts` are tokens before its
    step markers, ascending, `confidences` of a trial at each of them."""
    found: Candidates = []
    for index, (length, own) in enumerate(zip(lengths, starts, strict=True)):
        trials = confidences[index] if confidences is not None else None
        after = bisect_left(own, cut.tokens)
        near = [
            (_distance(own, trials, place, cut), cut.tokens + length - own[place])
            for place in (after - 1, after)
            if 0 <= place < len(own)
        ]
        if near:
            found.append(min(near))
    return found


def under_way(lengths: Sequence[int], starts: Sequence[Sequence[int]], cut: Cut) -> Candidates:
    """Every run, of ascending `lengths`, that was longer than the request by then."""
    first = bisect_right(lengths, cut.tokens)
    return [
        (abs(1 + bisect_left(own, cut.tokens) - cut.steps) / cut.steps, length)
        for length, own in zip(lengths[first:], starts[first:], strict=True)
    ]


def nearest(candidates: Candidates) -> list[float]:
    """Tokens of the nearest eighth and of those as near as the last of them, ascending."""
    near = sorted(each for each in candidates if each[0] < FARTHEST)
    count = max(FEWEST, min(len(candidates) // PART, MOST))
    last = near[min(count, len(near)) - 1][0] if near else 0.0
    return sorted(tokens for distance, tokens in near if distance <= last)


def _distance(starts: Sequence[int], trials: Confidences | None, place: int, cut: Cut) -> float:
    far = abs(starts[place] - cut.tokens) / max(cut.tokens, 1)
    far += abs(place + 1 - cut.steps) / cut.steps
    if trials is None or cut.confidence is None:
        return far
    other = trials[place]
    return far + (FARTHEST if other is None else abs(other - cut.confidence))
