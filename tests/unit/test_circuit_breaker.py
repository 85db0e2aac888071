"""The circuit breaker, with a simulated clock."""

from hypothesis import given
from hypothesis import strategies as st

from service.clients.circuit_breaker import CircuitBreaker


def broken() -> CircuitBreaker:
    breaker = CircuitBreaker(threshold=3, cooldown=1.0, longest=5.0)
    for _ in range(3):
        breaker.record_failure(now=10.0)
    return breaker


def tries(breaker: CircuitBreaker, until: float) -> list[float]:
    """Return the times of the calls it allows, asked ten times a second when every call fails."""
    found = []
    for tick in range(100, int(until * 10)):
        now = tick / 10
        if breaker.allows(now):
            found.append(now)
            breaker.record_failure(now)
    return found


def is_closed(breaker: CircuitBreaker) -> bool:
    """Return `closed` through a call, because mypy narrows an asserted attribute."""
    return breaker.closed


def test_it_opens_after_so_many_failures_in_a_row() -> None:
    breaker = CircuitBreaker(threshold=3)
    for _ in range(2):
        breaker.record_failure(10.0)
    assert is_closed(breaker)
    assert breaker.allows(10.0)
    breaker.record_success()
    for _ in range(2):
        breaker.record_failure(10.0)
    assert is_closed(breaker)
    breaker.record_failure(10.0)
    assert not is_closed(breaker)
    assert not breaker.allows(10.0)


def test_tries_are_single_and_ever_rarer_up_to_a_limit() -> None:
    assert tries(broken(), 35.0) == [11.0, 13.0, 17.0, 22.0, 27.0, 32.0]


def test_one_success_closes_it() -> None:
    breaker = broken()
    assert breaker.allows(11.0)
    assert not breaker.allows(11.0)
    breaker.record_success()
    assert breaker.closed
    assert breaker.allows(11.0)
    for _ in range(3):
        breaker.record_failure(20.0)
    assert not breaker.allows(20.9)
    assert breaker.allows(21.0)  # the wait starts over


def test_a_try_that_comes_to_nothing_does_not_block_the_next() -> None:
    breaker = broken()
    assert breaker.allows(11.0)  # cancelled: neither a success nor a failure
    assert not breaker.allows(12.9)
    assert breaker.allows(13.0)


def test_failures_of_calls_under_way_do_not_prolong_the_wait() -> None:
    breaker = broken()
    for _ in range(50):
        breaker.record_failure(10.5)
    assert breaker.allows(11.0)


@given(st.lists(st.sampled_from(["ask", "success", "failure"]), max_size=200))
def test_an_open_breaker_always_allows_a_try_within_its_longest_wait(events: list[str]) -> None:
    breaker, now = CircuitBreaker(), 0.0
    for event in events:
        now += 0.1
        if event == "ask":
            breaker.allows(now)
        elif event == "success":
            breaker.record_success()
        else:
            breaker.record_failure(now)
    assert breaker.allows(now + breaker.longest)
