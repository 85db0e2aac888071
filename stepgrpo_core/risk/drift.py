"""`RiskWatch`: an anytime-valid test that a guaranteed risk still holds.

The test is a betting e-process (Waudby-Smith and Ramdas 2024): wealth starts at 1, bets that the
next loss is above epsilon, and has an expected value of at most 1 as long as the risk is at most
epsilon. By Ville's inequality wealth ever reaches 1 / alpha with probability at most alpha, however
often somebody looks. The wealth is the mean over several bets, so no bet must be chosen.
"""

import math
from collections.abc import Iterable
from statistics import fmean

from stepgrpo_core.errors import InvalidSetting

__all__ = ["RiskWatch"]

SHARES = (0.05, 0.1, 0.2, 0.5)
"""Parts of the largest bet that cannot lose everything."""


class RiskWatch:
    """Watches losses of 0 to 1 for a risk above `epsilon`, at the false-alarm rate `alpha`."""

    def __init__(self, epsilon: float, alpha: float = 0.05) -> None:
        for name, value in (("epsilon", epsilon), ("alpha", alpha)):
            if not 0 < value < 1:
                raise InvalidSetting(name, value, "use a number between 0 and 1")
        self.epsilon = epsilon
        self.alpha = alpha
        self._logs = [0.0] * len(SHARES)
        self._highest = 1.0

    def add(self, losses: Iterable[float]) -> None:
        """Take losses in the order in which they were observed."""
        for loss in losses:
            for index, share in enumerate(SHARES):
                self._logs[index] += math.log1p(share / self.epsilon * (loss - self.epsilon))
            self._highest = max(self._highest, self.wealth)

    def count(self, kept: int, lost: int) -> None:
        """Take so many losses of 0 and of 1, whose order does not matter to the wealth."""
        for index, share in enumerate(SHARES):
            won = math.log1p(share / self.epsilon * (1 - self.epsilon))
            self._logs[index] += kept * math.log1p(-share) + lost * won
        self._highest = max(self._highest, self.wealth)

    @property
    def wealth(self) -> float:
        """Return the evidence against the guarantee; 1 is none."""
        return fmean(math.exp(min(each, 700.0)) for each in self._logs)

    @property
    def broken(self) -> bool:
        """Return whether the risk has been shown to be above epsilon, now or earlier."""
        return self._highest >= 1 / self.alpha
