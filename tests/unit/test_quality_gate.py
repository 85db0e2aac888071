"""The quality gate and the trust in predictions: what the newest pairs decide."""

import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.records.trust import Trust
from service.savings.plan import Plan
from service.savings.predictions import Predictions
from service.savings.quality_gate import GuaranteeWatch, QualityGate, restart_watch
from service.savings.state.series import JUDGED
from service.savings.state.store import RecentKey, SumStore
from stepgrpo_core import InvalidSetting
from stepgrpo_core.savings.baseline import Prediction
from tests.support.core.thresholds import made_thresholds

KEY = RecentKey(JUDGED, "demo", "confidence")
PLAN = Plan(pairs=0.1, agreement=0.9, agreement_pairs=40)


@pytest.fixture
def store() -> Iterator[SumStore]:
    made = SumStore()
    yield made
    made.close()


def judge(store: SumStore, gate: QualityGate, agreed: int, differed: int) -> bool:
    store.append(KEY, *[1.0] * agreed, *[0.0] * differed)
    gate.review("demo", "confidence")
    return gate.is_off("demo", "confidence")


def test_a_policy_that_changes_too_many_answers_is_switched_off(
    store: SumStore, caplog: pytest.LogCaptureFixture
) -> None:
    gate = QualityGate(store, PLAN)
    with caplog.at_level(logging.ERROR, "vllm.stepgrpo"):
        assert not judge(store, gate, 20, 15)  # too few to judge
        assert judge(store, gate, 5, 0)
    assert "confidence is switched off for demo: 62.5 % of the last 40" in caplog.text
    assert not gate.is_off("other", "confidence")
    (gauge,) = gate.collect()
    assert [(s.labels["policy"], s.value) for s in gauge.samples] == [("confidence", 1.0)]


def test_the_lower_end_of_the_interval_decides(store: SumStore) -> None:
    gate = QualityGate(store, PLAN)
    assert not judge(store, gate, 400, 0)
    assert not judge(store, gate, 0, 20)  # 95.2 %, from 92.8
    assert judge(store, gate, 0, 20)  # 90.9 %, from 87.7


def test_without_a_target_nothing_is_switched_off(store: SumStore) -> None:
    assert not judge(store, QualityGate(store, Plan(pairs=0.1)), 0, 100)


def test_it_is_off_in_every_process_and_after_a_restart_until_switched_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "sums.sqlite"
    first, second = SumStore(path), SumStore(path)
    gate, other = QualityGate(first, PLAN), QualityGate(second, PLAN)
    assert judge(first, gate, 0, 50)
    first.flush()
    second.flush()
    other.refresh()
    assert other.is_off("demo", "confidence")
    assert QualityGate(second, Plan()).is_off("demo", "confidence")
    second.switch_on("demo", "confidence")
    first.flush()
    with caplog.at_level(logging.WARNING, "vllm.stepgrpo"):
        gate.refresh()
    assert not gate.is_off("demo", "confidence")
    assert "on again for demo" in caplog.text
    first.close()
    second.close()


def test_after_its_probation_it_is_tried_again_and_counts_anew(store: SumStore) -> None:
    gate = QualityGate(store, Plan(pairs=0.1, agreement=0.9, agreement_pairs=40, probation=1))
    assert judge(store, gate, 0, 50)
    time.sleep(1.1)
    gate.refresh()
    assert not gate.is_off("demo", "confidence")
    assert store.recent(JUDGED) == {}
    assert not judge(store, gate, 39, 0)


def test_trust_follows_the_newest_outcomes(store: SumStore) -> None:
    predictions = Predictions(store)
    prediction = Prediction(100, 90, 110)
    for outcome in range(100, 200):
        predictions.record("demo", "confidence", prediction, outcome)
    assert predictions.trust("demo", "confidence") == Trust()
    predictions.refresh()
    trust = predictions.trust("demo", "confidence")
    assert trust == Trust(margin=80, stale=True)  # of 100 outcomes 11 lay inside
    assert trust.widen(prediction) == Prediction(100, 10, 190)
    assert predictions.trust("demo", "budget") == Trust()
    names = {s.name: s.value for metric in predictions.collect() for s in metric.samples}
    assert names["stepgrpo_prediction_stale"] == 1


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"holdout": 1.5}, "holdout"),
        ({"holdout_base": "demo"}, "holdout_base='demo' is invalid: set holdout"),
        ({"pairs": float("nan")}, "pairs"),
        ({"pairs_load": 0}, "pairs_load"),
        ({"pairs_url": "http://replica:8000/v1"}, "set pairs"),
        ({"pairs": 0.1, "pairs_url": "replica:8000"}, "pairs_url"),
        ({"agreement": 0.9}, "set pairs"),
        ({"pairs": 0.1, "agreement": 1}, "agreement"),
        ({"agreement_pairs": 5}, "agreement_pairs"),
        ({"probation": 0}, "probation"),
    ],
)
def test_a_plan_that_cannot_work_is_refused(fields: dict[str, object], named: str) -> None:
    with pytest.raises(InvalidSetting, match=named):
        Plan(**fields)  # type: ignore[arg-type]


# the watch of a guarantee


def watched(store: SumStore) -> GuaranteeWatch:
    made = GuaranteeWatch(store)
    made.start(made_thresholds())  # at most 8 % of the answers change
    return made


def test_a_broken_guarantee_switches_the_policy_off_until_it_is_switched_on(
    store: SumStore, caplog: pytest.LogCaptureFixture
) -> None:
    watch, gate = watched(store), QualityGate(store, Plan(pairs=0.1))
    for number in range(60):
        watch.record("demo", "confidence", changed=number % 3 == 0)
    with caplog.at_level(logging.ERROR, "vllm.stepgrpo"):
        watch.update()
        gate.update()
    assert gate.is_off("demo", "confidence")
    assert "exits changed 20 of 60 watched answers, more than the 8.0 %" in caplog.text
    (gauge,) = watch.collect()
    assert [(s.labels["policy"], s.value > 20) for s in gauge.samples] == [("confidence", True)]
    store.switch_on("demo", "confidence")
    restart_watch(store, "demo", "confidence")
    watch.record("demo", "confidence", changed=True)
    watch.update()
    gate.update()
    assert not gate.is_off("demo", "confidence")


def test_a_guarantee_that_holds_leaves_the_policy_on(store: SumStore) -> None:
    watch = watched(store)
    for number in range(1000):
        watch.record("demo", "confidence", changed=number % 20 == 0)
    watch.update()
    assert store.switched_off() == []
    (gauge,) = watch.collect()
    assert gauge.samples[0].value < 1


def test_losses_under_other_settings_are_not_watched(store: SumStore) -> None:
    old = GuaranteeWatch(store, lambda _: "old")
    for _ in range(60):
        old.record("demo", "confidence", changed=True)
    watched(store).update()
    GuaranteeWatch(store, lambda _: "old").update()  # no thresholds
    assert store.switched_off() == []
