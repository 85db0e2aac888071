"""Comparison of Step-GRPO with GRPO+LP at equal tokens: by checkpoint, and between checkpoints.

A method's training path is the line from vanilla through its checkpoints, in tokens and accuracy.
If the tokens of a Step-GRPO checkpoint are between those of two neighboring GRPO+LP checkpoints,
its accuracy is compared with theirs, interpolated by tokens. This is the accuracy of a mixture of
the two with the same cost.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from training.evaluation.intervals import RESAMPLES, difference_interval, resamples_of
from training.evaluation.records import Record
from training.evaluation.statistics import Estimate, summarize

__all__ = ["equal_tokens", "shown"]

Way = Mapping[int, Sequence[Record]]
"""Records of all seeds by optimizer step; step 0 is vanilla."""


def equal_tokens(ours: Way, theirs: Way) -> str:
    """Return the section; the differences are Step-GRPO's accuracy minus GRPO+LP's."""
    later = {step: records for step, records in theirs.items() if step}
    head = (
        "Step-GRPO",
        "GRPO+LP with as many tokens",
        *(f"GRPO+LP, {_place(step, at)}" for step, at in later.items()),
    )
    lines = [
        "## At equal tokens",
        "Accuracy of Step-GRPO less that of GRPO+LP in points, after so many steps with so many",
        "tokens; same problems and seeds as above. *As many* is on the line between the two",
        "checkpoints of GRPO+LP, vanilla among them, that have fewer and more tokens.",
        "",
        f"| {' | '.join(head)} |",
        "|---" * len(head) + "|",
    ]
    for step, mine in ours.items():
        if step:
            compared = (_difference(mine, other) for other in later.values())
            between = shown(at_as_many(mine, list(theirs.values())), 100, sign=True)
            lines.append(f"| {' | '.join([_place(step, mine), between, *compared])} |")
    return "\n".join(lines)


def at_as_many(mine: Sequence[Record], others: Sequence[Sequence[Record]]) -> Estimate | None:
    """Return the difference in accuracy to the line through `others` at the tokens of `mine`,
    clustered by problem; None if all of them have more tokens, or all have fewer. All must have the
    same questions and sample numbers."""
    tokens = _tokens(mine)
    line = sorted(others, key=_tokens)
    for fewer, more in pairwise(line):
        low, high = _tokens(fewer), _tokens(more)
        if low <= tokens <= high and low < high:
            share = (tokens - low) / (high - low)
            return _against(mine, [(1 - share, fewer), (share, more)])
    return None


def _against(
    mine: Sequence[Record], mixture: Sequence[tuple[float, Sequence[Record]]]
) -> Estimate | None:
    weighed = [(share, _hits(records)) for share, records in mixture]
    gains: dict[str, list[float]] = {}
    for each in mine:
        key = (each.question, each.sample)
        theirs = sum(share * hits[key] for share, hits in weighed)
        gains.setdefault(each.question, []).append(bool(each.correct) - theirs)
    return difference_interval(list(gains.values()), resamples_of(len(gains), RESAMPLES, seed=0))


def _hits(records: Sequence[Record]) -> dict[tuple[str, int], bool]:
    return {(each.question, each.sample): bool(each.correct) for each in records}


def _tokens(records: Sequence[Record]) -> float:
    return sum(each.tokens for each in records) / len(records)


def _place(step: int, records: Sequence[Record]) -> str:
    return f"{step}: {_tokens(records):.1f}"


def _difference(records: Sequence[Record], other: Sequence[Record]) -> str:
    versus = summarize(records, other).versus
    assert versus
    return shown(versus.accuracy, 100, sign=True)


def shown(estimate: Estimate | None, scale: float, *, sign: bool = False) -> str:
    """Return value and interval, scaled; empty for None."""
    if estimate is None:
        return ""
    value, low, high = (
        f"{scale * each:{'+' if sign else ''}.1f}"
        for each in (estimate.value, estimate.low, estimate.high)
    )
    return f"{value} ({low} to {high})"
