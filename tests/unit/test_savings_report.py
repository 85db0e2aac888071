"""The report of savings: rows by model and policy, and their three forms."""

import csv
import io
import json
from pathlib import Path

import pytest

from service.savings.command import savings_command
from service.savings.report import as_csv, as_json, as_table, savings_rows
from service.savings.store import Key, SumStore
from stepgrpo_core.fleet import Served


def sums(groups: int, policy: str = "confidence") -> dict[Key, Served]:
    found = {}
    for group in range(groups):
        for side, tokens, probes in (("exited", 60, 5), ("held", 100, 0)):
            key = Key("demo", policy, side, "completion", group)  # type: ignore[arg-type]
            found[key] = Served.one(tokens + group, 100)
            found[key._replace(measure="engine")] = Served.one(tokens + group + probes, 100)
    return found


def test_savings_gross_and_net_and_in_all() -> None:
    (row,) = as_json(savings_rows(sums(20)))["data"]
    assert (row["model_name"], row["policy"], row["method"]) == ("demo", "confidence", "holdout")
    assert (row["requests_exited"], row["requests_held"]) == (20, 20)
    assert row["saved_per_request"]["value"] == 40
    assert row["net_saved_per_request"]["value"] == 35
    assert row["saved_total"]["value"] == 800
    assert row["net_saved_total"]["value"] == 700
    assert row["compression"]["value"] == pytest.approx(69.5 / 109.5, abs=1e-4)
    for name in ("saved_per_request", "compression"):
        assert row[name]["low"] <= row[name]["value"] <= row[name]["high"]


def test_no_figure_before_there_is_an_interval() -> None:
    rows = savings_rows(sums(5))
    (row,) = as_json(rows)["data"]
    assert row["saved_per_request"] is row["saved_total"] is row["compression"] is None
    assert row["requests_held"] == 5
    table = as_table(as_json(rows))
    assert "too early" in table
    assert "10 random groups" in table


def test_policies_are_not_mixed() -> None:
    data = as_json(savings_rows(sums(20) | sums(12, "budget")))["data"]
    assert [(row["policy"], row["requests_exited"]) for row in data] == [
        ("budget", 12),
        ("confidence", 20),
    ]


def test_csv_has_the_same_columns_with_and_without_figures() -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(savings_rows(sums(20) | sums(3, "budget"))))))
    assert rows[0]["saved_total_value"] == ""
    assert float(rows[1]["saved_total_value"]) == 800
    assert float(rows[1]["compression_low"]) <= float(rows[1]["compression_value"])
    assert None not in rows[0]
    assert as_csv([]).count("\n") == 1


def test_the_table_reads_what_a_server_sends() -> None:
    data = json.loads(json.dumps(as_json(savings_rows(sums(20)))))
    table = as_table(data)
    assert "demo" in table
    assert "40.0 (40.0 to 40.0)" in table
    assert "intervals of 95 %" in table
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
