"""Limits of one key: concurrent sequences, and a token bucket of requests per minute."""

import pytest

from service.access.limits import KeyLimits


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_without_limits_all_may() -> None:
    limits = KeyLimits()
    assert all(limits.take(b"a") == 0 and limits.acquire(b"a", 100) for _ in range(1000))


def test_a_bucket_is_a_minutes_requests_and_fills_evenly() -> None:
    clock = Clock()
    limits = KeyLimits(rate=60, clock=clock)
    assert [limits.take(b"a") for _ in range(61)] == [0.0] * 60 + [1.0]
    assert limits.take(b"b") == 0, "another key's"
    clock.now += 0.25
    assert limits.take(b"a") == pytest.approx(0.75)
    clock.now += 0.75
    assert limits.take(b"a") == 0
    clock.now += 3600
    assert [limits.take(b"a") > 0 for _ in range(61)] == [False] * 60 + [True], "and holds no more"


def test_a_rate_below_one_is_one_request_now_and_then() -> None:
    clock = Clock()
    limits = KeyLimits(rate=0.5, clock=clock)
    assert limits.take(b"a") == 0
    assert limits.take(b"a") == 120
    clock.now += 120
    assert limits.take(b"a") == 0


def test_what_did_not_run_is_put_back() -> None:
    clock = Clock()
    limits = KeyLimits(rate=1, clock=clock)
    assert limits.take(b"a") == 0
    limits.refund(b"a")
    assert limits.take(b"a") == 0
    assert limits.take(b"a") == 60


def test_slots_are_a_keys_own_and_come_back() -> None:
    limits = KeyLimits(concurrency=3)
    assert limits.acquire(b"a", 2)
    assert not limits.acquire(b"a", 2)
    assert limits.acquire(b"a", 1)
    assert limits.acquire(b"b", 3)
    limits.release(b"a", 2)
    assert limits.acquire(b"a", 2)


def test_keys_that_went_are_forgotten_and_those_that_run_are_not() -> None:
    clock = Clock()
    limits = KeyLimits(concurrency=2, rate=60, clock=clock)
    limits.take(b"runs")
    limits.acquire(b"runs", 1)
    for number in range(100):
        key = str(number).encode()
        limits.take(key)
        limits.acquire(key, 1)
        limits.release(key, 1)
        clock.now += 60
    assert len(limits._accounts) <= 2 + 1
    assert not limits.acquire(b"runs", 2)
