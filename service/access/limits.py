"""Limits per API key: concurrent sequences, and requests per minute.

The rate is a token bucket per key that holds one minute's requests and refills evenly, by the
monotonic clock. A request is admitted or refused once, before any of it runs. Its sequences are
released when its response ends, also when the client disconnects.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["KeyLimits"]


@dataclass(slots=True)
class _Account:
    left: float
    """Requests left in the bucket at time `at`."""
    at: float
    """Seconds, by the clock."""
    running: int = 0
    """Running sequences."""


class KeyLimits:
    """The usage of every key; a limit of None is unlimited. Not thread-safe: use one event loop."""

    def __init__(
        self,
        concurrency: int | None = None,
        rate: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.concurrency = concurrency
        """Concurrent sequences of a key."""
        self.rate = rate
        """Requests per minute of a key."""
        self._clock = clock
        self._accounts: dict[bytes, _Account] = {}

    def take(self, caller: bytes) -> float:
        """Take one request from the bucket: return 0, or the seconds until there is one."""
        if self.rate is None:
            return 0.0
        account = self._account(caller)
        if account.left >= 1:
            account.left -= 1
            return 0.0
        return (1 - account.left) * 60 / self.rate

    def refund(self, caller: bytes) -> None:
        """Return a request to the bucket that was taken and did not run."""
        if self.rate is not None:
            self._account(caller).left += 1

    def acquire(self, caller: bytes, sequences: int) -> bool:
        """Start `sequences` if the limit allows it, and return whether it does."""
        account = self._account(caller)
        if self.concurrency is not None and account.running + sequences > self.concurrency:
            return False
        account.running += sequences
        return True

    def release(self, caller: bytes, sequences: int) -> None:
        """End `sequences` that `acquire` started."""
        self._accounts[caller].running -= sequences

    def _account(self, caller: bytes) -> _Account:
        now, full = self._clock(), max(self.rate or 0.0, 1.0)
        if caller not in self._accounts:
            self._forget(now, full)
            self._accounts[caller] = _Account(full, now)
        account = self._accounts[caller]
        account.left = self._left(account, now, full)
        account.at = now
        return account

    def _left(self, account: _Account, now: float, full: float) -> float:
        return min(account.left + (now - account.at) * (self.rate or 0.0) / 60, full)

    def _forget(self, now: float, full: float) -> None:
        """Drop idle accounts with a full bucket, so that old keys take no memory."""
        self._accounts = {
            caller: account
            for caller, account in self._accounts.items()
            if account.running or self._left(account, now, full) < full
        }
