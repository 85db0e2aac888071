"""Intervals that count training runs, against values worked out by hand."""

import json
import math

import pytest

from training.demo.seeds import RESULTS, section, table, welch


def test_welchs_interval_of_two_samples() -> None:
    found = welch([1.0, 2.0, 3.0], [5.0, 6.0, 7.0])
    # Variances 1, three runs each: standard error sqrt(2/3), four degrees of freedom, t = 2.776.
    assert found.value == -4
    assert found.high - found.value == pytest.approx(2.776 * math.sqrt(2 / 3), rel=2e-3)
    assert found.value - found.low == pytest.approx(found.high - found.value)


def test_a_known_value_has_no_spread_of_its_own() -> None:
    found = welch([1.0, 2.0, 3.0], 0.0)
    assert found.high == pytest.approx(2 + 4.303 * math.sqrt(1 / 3), rel=1e-3)


def test_unequal_spreads_cost_degrees_of_freedom() -> None:
    even, uneven = welch([0.0, 2.0, 4.0], [0.0, 2.0, 4.0]), welch([0.0, 2.0, 4.0], [2.0, 2.0, 2.0])
    assert even.high < math.sqrt(2) * uneven.high


def test_one_run_gives_no_interval() -> None:
    assert math.isnan(welch([1.0, 2.0], [3.0]).low)
    assert "shows no difference" in table(
        {
            "rows": {
                "**Step-GRPO**": {"seeds": [{"accuracy": {"value": 0.5}}] * 3},
                "one": {"seeds": [{"accuracy": {"value": 0.9}}]},
            }
        }
    )


def test_the_page_of_results_shows_the_table_of_its_figures() -> None:
    page = RESULTS.with_suffix(".md").read_text(encoding="utf-8")
    assert section(json.loads(RESULTS.read_text(encoding="utf-8"))) in page
