"""Clients that come, leave at any point, and stay: nothing leaks, everything is counted.

`python -m benchmarks.faults.churn` runs thousands of such requests; here are some hundreds.
"""

import pytest

from benchmarks.faults.churn import CUTS, Visit, churn, held, stays, visit
from tests.support.servers import Server

pytestmark = [pytest.mark.integration, pytest.mark.slow]

IDLE_SECONDS = 3.0  # 1 is promised


def test_f1_clients_that_leave_at_any_point_leave_nothing_behind(server: Server) -> None:
    churn(server, range(50))  # what is made once is made now
    before = held(server)
    result = churn(server, range(50, 350))
    after = held(server)
    assert result.idle_seconds < IDLE_SECONDS
    assert result.cut == dict.fromkeys(CUTS, 6)
    assert (after.tasks, after.descriptors) == (before.tasks, before.descriptors)


def test_f2_a_client_that_keeps_its_connection_is_never_taken_for_gone(server: Server) -> None:
    assert stays(server, 100) == 0


def test_the_script_is_half_streams_and_a_tenth_cuts() -> None:
    visits: list[Visit] = [visit(index) for index in range(1000)]
    assert sum(one.cut is not None for one in visits) == 100
    assert 500 <= sum(one.body.get("stream", False) for one in visits) <= 550
    assert [one.body for one in visits] == [visit(index).body for index in range(1000)]
