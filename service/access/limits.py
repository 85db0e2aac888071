"""What one API key may ask: so many sequences at once, so many requests in a minute.

Each key has a bucket of a minute's requests that fills evenly, by the monotonic clock. A request
is let in or refused once, before anything of it runs; its seats come back when its response ends,
which it also does when the client leaves.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["KeyLimits"]


@dataclass(slots=True)
class _Account:
    left: float
    """Requests in the bucket."""
    at: float
    """When that was so, by the clock."""
    running: int = 0
    """Sequences."""


class KeyLimits:
    """The accounts of all keys; None is no limit. One event loop's; no locks."""

    def __init__(
        self,
        concurrency: int | None = None,
        rate: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.concurrency = concurrency
        """Sequences of a key at once."""
        self.rate = rate
        """Requests of a key per minute."""
        self._clock = clock
        self._accounts: dict[bytes, _Account] = {}

    def take(self, caller: bytes) -> float:
        """Take one of the minute's requests: 0, or the seconds until there is one."""
        if self.rate is None:
            return 0.0
        account = self._account(caller)
        if account.left >= 1:
            account.left -= 1
            return 0.0
        return (1 - account.left) * 60 / self.rate

    def refund(self, caller: bytes) -> None:
        """A request that was taken and did not run."""
        if self.rate is not None:
            self._account(caller).left += 1

    def acquire(self, caller: bytes, sequences: int) -> bool:
        """Whether a request of so many sequences may run; `release` gives its seats back."""
        account = self._account(caller)
        if self.concurrency is not None and account.running + sequences > self.concurrency:
            return False
        account.running += sequences
        return True

    def release(self, caller: bytes, sequences: int) -> None:
        """A request has ended."""
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
        """Drop accounts that are as new ones would be: keys come and go."""
        self._accounts = {
            caller: account
            for caller, account in self._accounts.items()
            if account.running or self._left(account, now, full) < full
        }
