"""`entropy`: exit when the entropy of the token after the closing text is stable (EAT 2509.26522).

At paragraph ends the closing text is appended and the entropy H of the next token computed. With
the weight a of the newest check,

    M = (1 - a) M + a H        V = (1 - a) V + a (H - M)^2

exit when V / (1 - (1 - a)^n) < d after n >= 4 / a checks. The default a = 0.2 needs at least 20
checks: set `max_probes`, or `entropy_probes` for this policy alone, well above that.

Departures: our closing text is appended, where the paper has ``</think>`` and a newline; the
entropy covers the 20 most likely tokens, and the remaining mass counts as one more token.
Unverified: the authors' d, which they sweep (ours is a placeholder: calibrate it), and the order of
their updates.
"""

import math
from collections.abc import Sequence

from stepgrpo_core.errors import InvalidSetting
from stepgrpo_core.policies.base import Boundary, BoundaryKind, ExitReason, Needs, Verdict
from stepgrpo_core.policies.probes import Answer, Distribution, NextToken
from stepgrpo_core.policies.settings import ExitSettings

__all__ = ["EntropyPolicy", "entropy_of_head", "least_checks", "most_checks"]

TOP = 20  # vLLM's default limit


class EntropyPolicy:
    """Exits when the moving variance of the entropy is below `entropy_variance`."""

    def __init__(self, settings: ExitSettings) -> None:
        self._settings = settings
        self._least = least_checks(settings)
        self._most = most_checks(settings)
        if self._most < self._least:
            remedy = f"policy entropy exits after {self._least} checks at the earliest; allow more"
            name = "max_probes" if settings.entropy_probes is None else "entropy_probes"
            raise InvalidSetting(name, self._most, remedy)
        self._checks = 0
        self._mean = self._variance = 0.0

    @property
    def needs(self) -> Needs:
        """Request the distribution after the closing text, at paragraph ends."""
        settings = self._settings
        probe = NextToken(settings.closing_text, TOP)
        kinds = frozenset({BoundaryKind.PARAGRAPH})
        return Needs(kinds, settings.min_tokens, probe, settings.min_interval, self._most)

    def decide(self, boundary: Boundary, answer: Answer | None) -> Verdict:
        """Exit if the variance is small after enough checks; there is no confidence."""
        del boundary
        assert isinstance(answer, Distribution)
        a, entropy = self._settings.entropy_alpha, entropy_of_head(answer.logprobs)
        self._checks += 1
        self._mean = (1 - a) * self._mean + a * entropy
        self._variance = (1 - a) * self._variance + a * (entropy - self._mean) ** 2
        settled = self._variance / (1 - (1 - a) ** self._checks) < self._settings.entropy_variance
        done = settled and self._checks >= self._least
        return Verdict(ExitReason.ENTROPY if done else None)


def least_checks(settings: ExitSettings) -> int:
    """Return the number of checks before the first exit."""
    return math.ceil(4 / settings.entropy_alpha)


def most_checks(settings: ExitSettings) -> int:
    """Return the maximum number of checks."""
    return settings.max_probes if settings.entropy_probes is None else settings.entropy_probes


def entropy_of_head(logprobs: Sequence[float]) -> float:
    """Return the entropy in nats of a distribution, given its highest log-probabilities.

    The remaining mass counts as one token. NaN is ignored, values above 0 count as 0.
    """
    head = [math.exp(min(value, 0.0)) for value in logprobs if not math.isnan(value)]
    rest = max(1 - math.fsum(head), 0.0)
    return -math.fsum(p * math.log(p) for p in (*head, rest) if p > 0)
