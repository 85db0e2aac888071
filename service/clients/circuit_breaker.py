"""A circuit breaker: whether to call something that has been failing. Pure: time is passed in."""

import math
from dataclasses import dataclass, field

__all__ = ["CircuitBreaker"]


@dataclass(slots=True)
class CircuitBreaker:
    """Closed until `threshold` calls in a row have failed. Then one call may try after `cooldown`
    seconds, and after every failed try twice as long, up to `longest`. A success closes it."""

    threshold: int = 5
    cooldown: float = 1.0
    longest: float = 60.0
    _failures: int = field(default=0, init=False)
    _tries: int = field(default=0, init=False)
    _until: float = field(default=-math.inf, init=False)

    @property
    def closed(self) -> bool:
        """Whether calls go through as usual."""
        return self._failures < self.threshold

    def allows(self, now: float) -> bool:
        """Whether to call at `now`, in monotonic seconds; of those that ask in a wait, only one."""
        if self.closed:
            return True
        if now < self._until:
            return False
        # Whatever becomes of this try, even nothing: the next one comes a wait later.
        self._tries += 1
        self._until = now + min(self.cooldown * 2.0 ** min(self._tries, 32), self.longest)
        return True

    def record_success(self) -> None:
        """Enter a success."""
        self._failures = self._tries = 0

    def record_failure(self, now: float) -> None:
        """Enter a failure at `now`."""
        self._failures += 1
        if self._failures == self.threshold:  # those that come later were under way already
            self._until = now + self.cooldown
