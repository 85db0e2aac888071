"""A circuit breaker: stops calls to a server that keeps failing. The caller passes the time in."""

import math
from dataclasses import dataclass, field

__all__ = ["CircuitBreaker"]


@dataclass(slots=True)
class CircuitBreaker:
    """Opens after `threshold` consecutive failures and closes at the next success.

    While it is open, one attempt is allowed after `cooldown` seconds. The wait doubles with every
    failed attempt, up to `longest` seconds.
    """

    threshold: int = 5
    cooldown: float = 1.0
    longest: float = 60.0
    _failures: int = field(default=0, init=False)
    _attempts: int = field(default=0, init=False)
    _open_until: float = field(default=-math.inf, init=False)

    @property
    def closed(self) -> bool:
        """True if all calls are allowed."""
        return self._failures < self.threshold

    def allows(self, now: float) -> bool:
        """Return whether to call at `now`, in monotonic seconds; when open, one call per wait."""
        if self.closed:
            return True
        if now < self._open_until:
            return False
        # An attempt may end without a result, so the next one is due after the wait in any case.
        self._attempts += 1
        self._open_until = now + min(self.cooldown * 2.0 ** min(self._attempts, 32), self.longest)
        return True

    def record_success(self) -> None:
        """Close the circuit."""
        self._failures = self._attempts = 0

    def record_failure(self, now: float) -> None:
        """Count a failure at `now`."""
        self._failures += 1
        if self._failures == self.threshold:  # later failures are of calls that were in flight
            self._open_until = now + self.cooldown
