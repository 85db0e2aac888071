"""The quality gate and the watch of a guarantee: switch off policies that change too many answers.

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
from service.savings.state.contents import Key, Sums
from service.savings.state.series import JUDGED, WATCHED, under
from service.savings.state.store import RecentKey, SumStore, SwitchedOff
from stepgrpo_core.risk import RiskWatch, Thresholds
from stepgrpo_core.savings.intervals import Estimate, wilson

__all__ = ["GuaranteeWatch", "QualityGate", "agreement", "restart_watch"]

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
                restart_watch(self._store, each.model, each.policy)
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


class GuaranteeWatch:
    """Watches the guarantee of calibrated thresholds; without any, nothing is watched.

    A share of the requests under the guarantee is drawn at random, those without an exit as well. A
    loss is an exit that changed the answer, as its paired continuation shows. `RiskWatch` tests at
    a false-alarm rate of 5 %, without end, whether losses are more frequent than in the
    calibration; then the policy is switched off.
    """

    def __init__(self, store: SumStore, fingerprint: Callable[[str], str] = lambda _: "") -> None:
        self._store = store
        self._fingerprint = fingerprint  # of the settings that serve a model
        self._thresholds: Thresholds | None = None
        self._wealth: dict[tuple[str, str], float] = {}

    def start(self, thresholds: Thresholds | None) -> None:
        """Watch the guarantee of these thresholds from now on."""
        self._thresholds = thresholds

    def record(self, model: str, policy: str, *, changed: bool) -> None:
        """Record a drawn request; callable from an event loop."""
        key = Key(under(WATCHED, self._fingerprint(model)), model, policy, 0)
        self._store.add(key, {"changed" if changed else "kept": 1})

    def update(self) -> None:
        """Test the guarantee, and switch policies off that break it; called about every second."""
        found = self._thresholds
        if found is None:
            return
        for key, sums in self._store.read(WATCHED).items():
            if key.series != under(WATCHED, self._fingerprint(key.model)):
                continue
            kept, changed = _since_restart(sums)
            watch = RiskWatch(found.most_changed)
            watch.count(kept, changed)
            self._wealth[key.model, key.policy] = watch.wealth
            if watch.broken:
                self._switch_off(key, f"{changed} of {kept + changed}")

    def _switch_off(self, key: Key, share: str) -> None:
        assert self._thresholds is not None
        why = (
            f"exits changed {share} watched answers, more than the "
            f"{100 * self._thresholds.most_changed:.1f} % of the calibration; calibrate again"
        )
        fingerprint = self._fingerprint(key.model)
        if self._store.switch_off(
            SwitchedOff(key.model, key.policy, time.time(), why, fingerprint)
        ):
            _log.error("Policy %s is switched off for %s: %s.", key.policy, key.model, why)

    def collect(self) -> Iterator[Metric]:
        """Yield the evidence: 1 is none, and 20 ends the exits."""
        gauge = family("guarantee_wealth")
        for (model, policy), value in sorted(self._wealth.items()):
            gauge.add_metric([model, policy], value)
        yield gauge


def restart_watch(store: SumStore, model: str, policy: str) -> None:
    """Forget the losses of a policy, because it is switched on again."""
    for key, sums in store.read(WATCHED).items():
        if (key.model, key.policy) == (model, policy):
            kept, changed = _since_restart(sums)
            store.add(key, {"forgotten_kept": kept, "forgotten_changed": changed})


def _since_restart(sums: Sums) -> tuple[int, int]:
    """Return how many answers were kept and how many changed; sums only grow."""
    kept, changed = (
        int(sums.get(name, 0) - sums.get(f"forgotten_{name}", 0)) for name in ("kept", "changed")
    )
    return kept, changed
