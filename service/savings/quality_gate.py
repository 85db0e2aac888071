"""The quality gate: switches off a policy whose exits change too many answers.

It looks at the newest judged pairs of a model and policy. If the lower bound of the 95 % interval
of their agreement is below the target, the policy is switched off for that model, in all processes
that share the state file, until an operator switches it on (`stepgrpo-serve guard`) or its
probation ends. Counting then restarts. A decision applies to the settings and weights under which
the pairs were judged; others need pairs of their own. All methods except `record` run in the
store's thread and read the store's memory.
"""

import contextlib
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator

from prometheus_client.metrics_core import Metric

from service.records.metric_table import family
from service.savings.plan import Plan
from service.savings.state.series import JUDGED, under
from service.savings.state.store import RecentKey, SumStore, SwitchedOff
from stepgrpo_core.savings.intervals import Estimate, wilson

__all__ = ["QualityGate", "agreement"]

_log = logging.getLogger("vllm.stepgrpo")


def agreement(agreed: float, judged: float) -> Estimate | None:
    """Return the share of unchanged answers with its 95 % interval; None without judged pairs."""
    if not judged:
        return None
    return Estimate(agreed / judged, *wilson(agreed / judged, judged))


class QualityGate:
    """Decides which policies are off. Without a target, it switches none off."""

    def __init__(
        self, store: SumStore, plan: Plan, fingerprint: Callable[[str], str] = lambda _: ""
    ) -> None:
        self._store = store
        self._fingerprint = fingerprint  # of the settings that serve a model
        self._target = plan.agreement
        self._pairs = plan.agreement_pairs
        self._probation = plan.probation
        self._to_review: set[tuple[str, str]] = set()
        self._off: dict[tuple[str, str], SwitchedOff] = {}
        self.refresh()

    @property
    def off(self) -> list[SwitchedOff]:
        """Switched-off policies, as of the last `refresh`."""
        return sorted(self._off.values())

    def is_off(self, model: str, policy: str) -> bool:
        """Return whether `policy` is switched off for `model`."""
        return (model, policy) in self._off

    def refresh(self) -> None:
        """Read which policies are off, and end probations."""
        if self._store.problem is None:
            with contextlib.suppress(sqlite3.Error, OSError):  # the store warns; policies stay off
                self._end_probations()
        found = [each for each in self._store.switched_off() if self._applies(each)]
        for key in self._off.keys() - {each[:2] for each in found}:
            _log.warning(
                "Policy %s is on again for %s: the count of its pairs restarts.", key[1], key[0]
            )
        self._off = {each[:2]: each for each in found}

    def _applies(self, off: SwitchedOff) -> bool:
        """Return whether a decision applies to the settings that are served here."""
        return off.fingerprint in ("", self._fingerprint(off.model))

    def _end_probations(self) -> None:
        for each in self._store.switched_off():
            if self._probation is not None and time.time() - each.since >= self._probation:
                series = under(JUDGED, each.fingerprint)
                self._store.forget(RecentKey(series, each.model, each.policy))
                self._store.switch_on(each.model, each.policy, each.fingerprint)

    def record(self, model: str, policy: str, *, agreed: bool) -> None:
        """Record a judged pair; callable from an event loop."""
        self._store.append(self._judged(model, policy), float(agreed))
        self._to_review.add((model, policy))

    def _judged(self, model: str, policy: str) -> RecentKey:
        return RecentKey(under(JUDGED, self._fingerprint(model)), model, policy)

    def update(self) -> None:
        """Review policies with new pairs, then refresh; called about every second."""
        while self._to_review:
            self.review(*self._to_review.pop())
        self.refresh()

    def review(self, model: str, policy: str) -> None:
        """Decide about a policy by its newest pairs."""
        if self._target is None or self.is_off(model, policy):
            return
        key = self._judged(model, policy)
        judged = self._store.recent(key.series).get(key, [])
        found = agreement(sum(judged), len(judged))
        if found is None or len(judged) < self._pairs or found.low >= self._target:
            return
        why = (
            f"{100 * found.value:.1f} % of the last {len(judged)} judged answers are unchanged "
            f"(95 % interval from {100 * found.low:.1f} %), the target is "
            f"{100 * self._target:.1f} %"
        )
        off = SwitchedOff(model, policy, time.time(), why, self._fingerprint(model))
        if self._store.switch_off(off):
            _log.error("Policy %s is switched off for %s: %s.", policy, model, why)
        self.refresh()

    def collect(self) -> Iterator[Metric]:
        """Yield a gauge that is 1 for every policy that is off."""
        gauge = family("policy_switched_off")
        for each in self.off:
            gauge.add_metric([each.model, each.policy], 1)
        yield gauge
