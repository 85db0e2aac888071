"""The report of savings: rows by model and policy, and their three forms."""

import csv
import io
import json
from pathlib import Path

import pytest

from service.savings.command import guard_command, savings_command
from service.savings.estimates import estimate_savings
from service.savings.report import ReportCollector, as_csv, as_json, as_table
from service.savings.state.series import JUDGED, TRAINED
from service.savings.state.store import RecentKey, SumStore, SwitchedOff
from tests.support.service.sums import pairs, sums


def test_savings_gross_and_net_and_in_all() -> None:
    (row,) = as_json(estimate_savings(sums(20)))["data"]
    assert (row["model_name"], row["policy"], row["method"]) == ("demo", "confidence", "holdout")
    assert (row["requests"], row["requests_compared"]) == (20, 20)
    assert row["saved_per_request"]["value"] == 40
    assert row["net_saved_per_request"]["value"] == 35
    assert row["saved_total"]["value"] == 800
    assert row["net_saved_total"]["value"] == 700
    assert row["compression"]["value"] == pytest.approx(69.5 / 109.5, abs=1e-4)
    for name in ("saved_per_request", "compression"):
        assert row[name]["low"] <= row[name]["value"] <= row[name]["high"]


def test_pairs_correct_what_was_predicted() -> None:
    (row,) = as_json(estimate_savings(pairs(16)))["data"]
    assert (row["source"], row["method"]) == ("exit", "measured")
    assert (row["requests"], row["requests_compared"], row["requests_unmeasurable"]) == (48, 16, 16)
    assert row["saved_total"]["value"] == 16 * 60 + 32 * 5
    assert row["net_saved_total"]["value"] == 16 * 60 + 32 * 5 - 160
    assert row["saved_per_request"]["value"] == pytest.approx(1120 / 48, abs=0.05)
    assert row["compression"]["value"] == pytest.approx(2880 / 4000, abs=1e-4)
    assert row["agreement"]["value"] == 1
    assert 0.75 < row["agreement"]["low"] < 1
    assert row["pairs_judged"] == 16


def test_an_interval_wider_than_all_there_is_has_a_compression_too() -> None:
    wide = {
        key: {**found, "saved": -60.0, "error": 500.0 * (key.group % 2) - 250}
        for key, found in pairs(12).items()
    }
    rows = estimate_savings(wide)
    (row,) = json.loads(json.dumps(as_json(rows), allow_nan=False))["data"]
    assert row["saved_total"]["low"] < -2200  # more than the tokens of all
    assert row["compression"]["low"] < row["compression"]["value"] < row["compression"]["high"]


def test_what_training_saves_is_a_row_of_its_own() -> None:
    data = as_json(estimate_savings(pairs(16) | pairs(16, TRAINED) | sums(20)))["data"]
    assert [(row["source"], row["method"]) for row in data] == [
        ("exit", "holdout"),
        ("exit", "measured"),
        ("training", "measured"),
    ]


def test_a_control_arm_of_the_base_model_is_reported_as_training() -> None:
    trained = sums(20, "none", "training")
    both = sums(15, compared="training")
    data = as_json(estimate_savings(trained | both | sums(12) | pairs(16, TRAINED)))["data"]
    assert [(row["source"], row["method"], row["policy"], row["requests"]) for row in data] == [
        ("exit", "holdout", "confidence", 12),
        ("training+exit", "holdout", "confidence", 15),
        ("training", "measured", "confidence", 48),
        ("training", "holdout", "none", 20),
    ]
    assert data[-1]["saved_per_request"]["value"] == 40
    assert "training  holdout" in as_table(as_json(estimate_savings(trained)))


def test_metrics_tell_holdouts_apart() -> None:
    store = SumStore()
    for key, found in (sums(20) | sums(12, compared="training")).items():
        store.add(key, found)
    requests = next(ReportCollector(store).collect())
    store.close()
    assert {(s.labels["source"], s.labels["side"]): s.value for s in requests.samples} == {
        ("exit", "exited"): 20,
        ("exit", "held"): 20,
        ("training+exit", "exited"): 12,
        ("training+exit", "held"): 12,
    }


def test_metrics_have_the_figures_of_both_methods() -> None:
    store = SumStore()
    for key, found in (sums(20) | pairs(16)).items():
        store.add(key, found)
    values = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for metric in ReportCollector(store).collect()
        for sample in metric.samples
    }
    store.close()
    labels = ("confidence", "demo")
    assert values["stepgrpo_holdout_requests", *labels, "exit", "held"] == 20
    gross = tuple(sorted((*labels, "exit", "gross", "value")))
    assert values["stepgrpo_measured_saved_tokens", *gross] == 1120
    assert values["stepgrpo_agreement_ratio", *sorted((*labels, "exit", "value"))] == 1


def test_no_figure_before_there_is_an_interval() -> None:
    rows = estimate_savings(sums(5))
    (row,) = as_json(rows)["data"]
    assert row["saved_per_request"] is row["saved_total"] is row["compression"] is None
    assert row["requests_compared"] == 5
    table = as_table(as_json(rows))
    assert "too early" in table
    assert "10 random groups" in table


def test_policies_are_not_mixed() -> None:
    data = as_json(estimate_savings(sums(20) | sums(12, "budget")))["data"]
    assert [(row["policy"], row["requests"]) for row in data] == [
        ("budget", 12),
        ("confidence", 20),
    ]


def test_csv_has_the_same_columns_with_and_without_figures() -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(estimate_savings(sums(20) | sums(3, "budget"))))))
    assert rows[0]["saved_total_value"] == ""
    assert float(rows[1]["saved_total_value"]) == 800
    assert float(rows[1]["compression_low"]) <= float(rows[1]["compression_value"])
    assert None not in rows[0]
    assert as_csv([]).count("\n") == 1


def test_the_table_reads_what_a_server_sends() -> None:
    data = json.loads(json.dumps(as_json(estimate_savings(sums(20)))))
    table = as_table(data)
    assert "demo" in table
    assert "40.0 (40.0 to 40.0)" in table
    assert "Intervals are 95 %" in table
    assert "--exit-holdout" in as_table(as_json([]))


# The command.


def test_the_command_reads_the_file_of_a_server_that_is_gone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = SumStore(tmp_path / "sums.sqlite")
    for key, served in sums(20).items():
        store.add(key, served)
    store.close()
    for form, shown in (
        ("table", "40.0 (40.0 to 40.0)"),
        ("json", '"value": 40.0'),
        ("csv", ",40"),
    ):
        savings_command(["--state", str(tmp_path / "sums.sqlite"), "--format", form])
        assert shown in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--state", "none.sqlite"], "none.sqlite"),
        (["--url", "http://127.0.0.1:9"], "refused"),
        (["--url", "nonsense"], "protocol"),
    ],
)
def test_the_command_says_what_is_missing(arguments: list[str], named: str) -> None:
    with pytest.raises(SystemExit, match=named) as ended:
        savings_command(arguments)
    assert str(ended.value).startswith("stepgrpo-serve savings: ")


def test_a_file_of_something_else_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a database, and long enough to be seen as none")
    with pytest.raises(SystemExit, match=r"notes\.txt"):
        savings_command(["--state", str(tmp_path / "notes.txt")])


# The guard command


def test_the_guard_command_lists_and_switches_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sums.sqlite"
    store = SumStore(path)
    store.append(RecentKey(JUDGED, "demo", "confidence"), 0.0)
    store.switch_off(SwitchedOff("demo", "confidence", 0.0, "too many differ"))
    store.close()
    guard_command(["--state", str(path)])
    assert "demo  confidence  since 1970-01-01 00:00:00+00:00: too many" in capsys.readouterr().out
    guard_command(["--state", str(path), "--switch-on", "demo", "confidence"])
    guard_command(["--state", str(path)])
    assert capsys.readouterr().out.splitlines() == [
        "Policy confidence is on again for demo.",
        "No policy is switched off.",
    ]
    store = SumStore(path)
    assert store.recent(JUDGED) == {}
    store.close()


def test_the_guard_command_explains_errors(tmp_path: Path) -> None:
    SumStore(tmp_path / "sums.sqlite").close()
    for arguments, named in (
        (["--state", str(tmp_path / "none")], "none does not exist"),
        (
            ["--state", str(tmp_path / "sums.sqlite"), "--switch-on", "a", "b"],
            "'b' is not switched",
        ),
    ):
        with pytest.raises(SystemExit, match=named):
            guard_command(arguments)
