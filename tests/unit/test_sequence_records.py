"""Accounting rules: what is delivered, what is saved, and when there is no number."""

from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from service.records.metrics import Metrics
from service.records.sequence import Saved, SequenceRecord
from service.records.timeline import Start
from service.records.trust import Trust
from stepgrpo_core import ExitReason, ExitSettings, Outcome, fit_baseline
from stepgrpo_core.savings.baseline import Conditions, Run

BASELINE = fit_baseline("m", {}, [Run(20, 10 * n) for n in range(1, 101)])


def record(reason: ExitReason = ExitReason.CONFIDENT, **changes: object) -> SequenceRecord:
    made = SequenceRecord(0, "m", "confidence", prompt_tokens=20)
    made.outcome = Outcome(reason, 2, 100, 2, 0, (0.2, 0.97), None)
    made.status, made.finish_reason = "completed", "stop"
    made.generated_tokens, made.injected_tokens, made.discarded_tokens = 130, 3, 10
    made.delivered_tokens, made.probe_tokens, made.cut_at = 123, 12, 100
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def test_delivered_tokens_are_generated_less_discarded_plus_injected() -> None:
    made = record()
    assert made.completion_tokens == 123
    assert made.aborted_tokens == 0
    assert record(delivered_tokens=100).aborted_tokens == 23


def test_a_saving_is_the_conditional_prediction_less_what_was_used() -> None:
    made = record()
    made.settle(BASELINE, Trust())
    assert made.saved is not None
    mean = sum(range(110, 1001, 10)) / 90
    assert made.saved.tokens == round(mean) - 123
    assert made.saved.net == made.saved.tokens - 12
    assert made.saved.low < made.saved.tokens < made.saved.high


@pytest.mark.parametrize(
    ("reason", "tokens"),
    [
        (ExitReason.CONFIDENT, 100 + 200),  # at its second step boundary, with confidence 0.97
        (ExitReason.BUDGET, 467),  # in its second step, whatever a trial had said: 300, 500, 600
    ],
)
def test_the_prediction_sees_steps_and_the_trial_that_led_to_the_exit(
    reason: ExitReason, tokens: int
) -> None:
    runs = [
        *[Run(20, 300, (30, 100), (0.2, 0.97))] * 100,
        *[Run(20, 400, (100,), (0.97,))] * 100,
        *[Run(20, 500, (30, 110), (0.2, 0.5))] * 100,
        *[Run(20, 600, (30, 100), (0.2, 0.7))] * 100,
    ]
    made = record(reason)
    made.settle(fit_baseline("m", {}, runs, Conditions.of(ExitSettings())), Trust())
    assert made.predicted is not None
    assert round(made.predicted.tokens) == tokens
    assert made.saved is not None
    assert made.saved.tokens == tokens - 123


def test_a_saving_may_be_negative() -> None:
    made = record(generated_tokens=2000, delivered_tokens=1993)
    made.settle(BASELINE, Trust())
    assert made.saved is not None
    assert made.saved.tokens < 0


def test_without_an_exit_nothing_is_saved_and_probes_are_a_cost() -> None:
    made = record(ExitReason.NATURAL, cut_at=None)
    made.settle(BASELINE, Trust())
    assert made.saved == Saved(0, 0, 0, -12)


@pytest.mark.parametrize(
    "changes",
    [
        {"policy": "none"},
        {"status": "aborted"},
        {"status": "failed"},
        {"finish_reason": "length"},
        {"stopped": True},
        {"outcome": None},
        {"prompt_tokens": 999},
        {"cut_at": 990},
        {"reason": ExitReason.LENGTH, "cut_at": None},
        {"reason": ExitReason.EOS_IN_THINKING},
        {"reason": ExitReason.CLIENT},
        {"reason": ExitReason.NONE, "cut_at": None},
    ],
)
def test_no_basis_no_number(changes: dict[str, Any]) -> None:
    made = record(**changes)
    made.settle(BASELINE, Trust())
    assert made.saved is None


def test_without_calibration_there_is_no_number_and_no_metric() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    made = record()
    made.settle(None, Trust())
    metrics.started(made)
    metrics.ended(made)
    text = generate_latest(registry).decode()
    assert made.saved is None
    assert "stepgrpo_saved_tokens_total{" not in text
    assert (
        'stepgrpo_exits_total{exit_reason="confident",model_name="m",policy="confidence"} 1.0'
        in text
    )


def test_metrics_add_up() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    negative = record(generated_tokens=2000, delivered_tokens=1993)
    aborted = record(status="aborted", delivered_tokens=100, outcome=None)
    for made in (record(), negative, aborted):
        made.settle(BASELINE, Trust())
        metrics.started(made)
        metrics.ended(made)

    def total(name: str) -> float:
        return sum(
            sample.value
            for family in registry.collect()
            for sample in family.samples
            if sample.name == f"stepgrpo_{name}_total"
        )

    assert total("requests_started") == total("requests") == 3
    assert total("exits") == 2
    parts = total("completion_tokens") - total("injected_tokens") + total("discarded_tokens")
    assert parts + total("aborted_tokens") == 130 + 2000 + 130
    assert total("saved_tokens") > 0
    assert total("overspent_tokens") > 0


def test_what_users_wait_for_is_measured_of_completed_sequences() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    for status in ("completed", "aborted"):
        made = record(status=status)
        line = made.timeline
        line.start, line.first_token, line.thought = Start(100.0, 0), 100.5, 102.5
        line.answer, line.ended = 103.0, 104.0
        metrics.ended(made)
    labels = {"model_name": "m", "policy": "confidence", "exit_reason": "confident"}
    expected = {"thinking": 2.0, "time_to_first_answer_token": 3.0, "answer": 1.5}
    for name, seconds in expected.items():
        found = {
            part: registry.get_sample_value(f"stepgrpo_{name}_seconds_{part}", labels)
            for part in ("sum", "count")
        }
        assert found == {"sum": seconds, "count": 1}, name
    sizes = {"reasoning": 200, "answer": 46}  # of both
    for name, tokens in sizes.items():
        assert registry.get_sample_value(f"stepgrpo_request_{name}_tokens_sum", labels) == tokens
