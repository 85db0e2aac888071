"""F25: some seconds of the soak; the whole of it is `make soak`, its report docs/soak.md."""

import pytest

from benchmarks.faults.soak import WARM, plan, soak

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def test_f25_mixed_traffic_with_faults_leaves_nothing_unexplained() -> None:
    lives = soak(plan(0.5), show=False)
    assert [life.ending for life in lives] == ["engine", "server"]
    for life in lives:
        assert life.requests > WARM
        assert life.cut
        assert life.verdicts["whole"] > WARM / 2
        assert life.ending_verdicts["nobody there"]
        least, found, most = life.sums
        assert 0 < least <= found <= most
    assert lives[0].ending_verdicts["500"]
