"""Trust in predictions: their intervals are widened by the errors of pairs (conformal), and
monitored."""

from collections.abc import Callable, Iterator

from prometheus_client.metrics_core import Metric

from service.records.metric_table import family
from service.records.trust import Trust
from service.savings.state.series import COVERED, SCORES, under
from service.savings.state.store import RecentKey, SumStore
from stepgrpo_core.savings.baseline import Prediction
from stepgrpo_core.savings.conformal import Coverage, coverage, score, widening

__all__ = [
    "Predictions",
]


class Predictions:
    """Trust by model and policy, as of the last `refresh`."""

    def __init__(self, store: SumStore, fingerprint: Callable[[str], str] = lambda _: "") -> None:
        self._store = store
        self._fingerprint = fingerprint  # of the settings that serve a model
        self._trust: dict[tuple[str, str], Trust] = {}
        self._coverage: dict[tuple[str, str], Coverage] = {}
        self.refresh()

    def trust(self, model: str, policy: str) -> Trust:
        """Return the trust in predictions for `model` under `policy`."""
        return self._trust.get((model, policy), Trust())

    def record(self, model: str, policy: str, prediction: Prediction, outcome: float) -> None:
        """Record the measured `outcome` of a request for which `prediction` was made."""
        widened = self.trust(model, policy).widen(prediction)
        covered = widened.low <= outcome <= widened.high
        self._store.append(self._key(COVERED, model, policy), float(covered))
        self._store.append(self._key(SCORES, model, policy), score(prediction, outcome))

    def _key(self, series: str, model: str, policy: str) -> RecentKey:
        return RecentKey(under(series, self._fingerprint(model)), model, policy)

    def refresh(self) -> None:
        """Recompute from the pairs of all processes; called about every second."""
        scores, covered = self._recent(SCORES), self._recent(COVERED)
        found = {key: coverage(values) for key, values in covered.items()}
        self._coverage = {key: each for key, each in found.items() if each is not None}
        self._trust = {
            key: Trust(widening(values), self._is_stale(*key)) for key, values in scores.items()
        }

    def _recent(self, series: str) -> dict[tuple[str, str], list[float]]:
        """Return recent values by model and policy, under the current fingerprints."""
        return {
            (key.model, key.policy): values
            for key, values in self._store.recent(series).items()
            if key == self._key(series, key.model, key.policy)
        }

    def _is_stale(self, model: str, policy: str) -> bool:
        found = self._coverage.get((model, policy))
        return found is not None and found.stale

    def collect(self) -> Iterator[Metric]:
        """Yield the coverage with its interval, and whether it is stale."""
        share = family("prediction_coverage_ratio")
        stale = family("prediction_stale")
        for key, found in sorted(self._coverage.items()):
            for bound in ("value", "low", "high"):
                share.add_metric([*key, bound], getattr(found, bound))
            stale.add_metric([*key], float(found.stale))
        yield share
        yield stale
