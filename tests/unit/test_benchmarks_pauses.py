"""Pauses of the machine: what spans one is told from what does not."""

import time

from benchmarks.shared.pauses import Pauses, percentile, watched


def test_what_touches_a_pause_is_left_out() -> None:
    pauses = Pauses([(10.0, 1.0)])
    before, into, within, around, after = (
        (8.0, 2.0),
        (9.5, 0.6),
        (10.2, 0.1),
        (9.0, 3.0),
        (11.0, 1.5),
    )
    assert pauses.outside([before, into, within, around, after]) == [2.0, 1.5]
    assert Pauses().outside([within]) == [0.1]


def test_percentiles_are_of_the_nearest_rank() -> None:
    assert percentile(range(200), 0.99) == 198
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([], 0.5) != percentile([], 0.5)


def test_pauses_lie_within_what_is_watched() -> None:
    began = time.monotonic()
    with watched() as pauses:
        time.sleep(0.3)
    assert all(at >= began and at + long <= time.monotonic() for at, long in pauses.spans)
    assert sum(long for _, long in pauses.spans) < time.monotonic() - began
