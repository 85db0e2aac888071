"""Strata: which requests share one, and files and reports across changed settings."""

import contextlib
import dataclasses
import sqlite3
from pathlib import Path

import pytest

from service.records.sequence import SequenceRecord
from service.savings.command import savings_command
from service.savings.estimates import SavingsEstimate
from service.savings.plan import Plan
from service.savings.quality_gate import QualityGate
from service.savings.report import as_csv, as_json, as_table, read_estimates
from service.savings.state.contents import group_of, stratum_of
from service.savings.state.series import holdout_series
from service.savings.state.store import SumStore
from stepgrpo_core.savings.holdout import Arm
from tests.support.service.strata import CHANGES, SETTINGS, in_stratum, request, serving, stratum
from tests.support.service.sums import sums

OLD = """
CREATE TABLE sums (
    series TEXT, model TEXT, policy TEXT, random_group INTEGER, name TEXT, value REAL NOT NULL,
    PRIMARY KEY (series, model, policy, random_group, name)
) WITHOUT ROWID;
CREATE TABLE recent (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    series TEXT NOT NULL, model TEXT NOT NULL, policy TEXT NOT NULL, value REAL NOT NULL
);
CREATE INDEX recent_by_series ON recent (series, model, policy, id);
CREATE TABLE switched_off (
    model TEXT, policy TEXT, since REAL NOT NULL, why TEXT NOT NULL,
    PRIMARY KEY (model, policy)
) WITHOUT ROWID;
CREATE TABLE secrets (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
INSERT INTO secrets VALUES ('holdout', randomblob(32));
INSERT INTO switched_off VALUES ('demo', 'margin', 1.0, 'too many differ');
PRAGMA journal_mode = WAL;
PRAGMA user_version = 2;
"""
"""Of a file as versions before strata made it."""


# Assignment to strata


@pytest.mark.parametrize("change", CHANGES)
def test_what_decides_who_is_compared_or_how_requests_are_served_begins_a_stratum(
    tmp_path: Path, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    numbers = []
    for changed in ({}, CHANGES[change], {}):
        with serving(tmp_path / "sums.sqlite", **changed) as savings:
            numbers.append(stratum(savings))
    assert 0 not in numbers
    assert numbers[0] != numbers[1]
    assert numbers[2] == numbers[0]  # the first settings go on where they were
    (line,) = (each.message for each in caplog.records if "new stratum" in each.message)
    assert "Savings of demo" in line
    assert "→" in line


def test_an_adapter_has_strata_of_its_own_by_its_weights_or_by_where_it_came_from(
    tmp_path: Path,
) -> None:
    static = {"weights": {None: "a", "tuned": "b"}}
    with serving(tmp_path / "sums.sqlite", **static) as savings:  # type: ignore[arg-type]
        base = stratum(savings)
        tuned = stratum(savings, "tuned", lora_name="tuned", lora_path="x", lora_int_id=1)
        loaded = [
            stratum(savings, "more", lora_name="more", lora_path=path, lora_int_id=number)
            for path, number in (("y", 2), ("y", 3), ("z", 3), ("y", 2))
        ]
    assert len({base, tuned, *loaded}) == 5
    assert loaded[0] == loaded[3]
    for weights, same in (({None: "a", "tuned": "b"}, True), ({None: "a", "tuned": "c"}, False)):
        with serving(tmp_path / "sums.sqlite", weights=weights) as savings:
            again = stratum(savings, "tuned", lora_name="tuned", lora_path="w", lora_int_id=9)
            assert (again == tuned) is same


def test_requests_are_entered_in_their_stratum(tmp_path: Path) -> None:
    with serving(tmp_path / "sums.sqlite") as savings:
        record = SequenceRecord(0, "demo", "confidence", 1, arm=Arm(control=True, group=63))
        savings.assign_stratum(request(), [record])
        savings.ended(request(), record, None)
        keys = savings.store.read("holdout/held/")
        assert {stratum_of(key.group) for key in keys} == {stratum(savings)} != {0}
        assert {group_of(key.group) for key in keys} == {63}
    store = SumStore(tmp_path / "sums.sqlite")  # and is read again
    assert store.read("holdout/held/") == keys
    store.close()


# The quality gate


def test_a_verdict_holds_for_what_was_judged(tmp_path: Path) -> None:
    state = tmp_path / "sums.sqlite"
    plan = Plan(holdout=0.5, pairs=0.1, agreement=0.9, agreement_pairs=40)
    other = {"settings": dataclasses.replace(SETTINGS, threshold=0.99)}
    with serving(state, plan) as savings:
        for _ in range(50):
            savings.quality_gate.record("demo", "confidence", agreed=False)
        savings.quality_gate.update()
        assert savings.quality_gate.is_off("demo", "confidence")
    for changed, off in ((other, False), ({}, True), ({"plan": Plan(holdout=0.1)}, True)):
        with serving(state, **{"plan": plan, **changed}) as savings:  # type: ignore[arg-type]
            savings.quality_gate.update()
            assert savings.quality_gate.is_off("demo", "confidence") is off
            assert bool(savings.warnings()) is off
    with serving(state, plan, **other) as savings:  # type: ignore[arg-type]
        savings.quality_gate.record("demo", "confidence", agreed=True)
        savings.quality_gate.update()
        assert not savings.quality_gate.is_off("demo", "confidence")  # its pairs are its own
    store = SumStore(state)
    assert store.switch_on("demo", "confidence")
    assert store.switched_off() == []
    store.close()


def test_a_quality_gate_without_fingerprints_judges_all(tmp_path: Path) -> None:
    store = SumStore(tmp_path / "sums.sqlite")
    gate = QualityGate(store, Plan(pairs=0.1, agreement=0.9, agreement_pairs=40))
    for _ in range(50):
        gate.record("demo", "confidence", agreed=False)
    gate.update()
    assert gate.is_off("demo", "confidence")
    store.close()


# Files of earlier versions


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """With 40 tokens saved by each of 20, and 20 held out."""
    path = tmp_path / "sums.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as file, file:
        file.executescript(OLD)
        rows = [(*key, *each) for key, named in sums(20).items() for each in named.items()]
        file.executemany("INSERT INTO sums VALUES (?, ?, ?, ?, ?, ?)", rows)
    return path


def rows(path: Path) -> list[SavingsEstimate]:
    store = SumStore(path)
    found = read_estimates(store)
    store.close()
    return found


def test_sums_of_before_are_a_stratum_and_nothing_is_lost(
    old: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(old) as savings:
        assert savings.quality_gate.is_off("demo", "margin")  # whatever the settings were
        here = stratum(savings)
        for key, found in in_stratum(sums(15), here).items():
            savings.store.add(key, found)
    (row,) = rows(old)
    assert (row.requests, row.compared) == (35, 35)
    assert [(part.since is None, part.requests) for part in row.strata] == [(True, 20), (False, 15)]
    assert row.savings is not None
    assert row.savings.saved_total.value == pytest.approx(35 * 40)
    assert "an earlier version did not record its settings" in caplog.text


def test_a_version_before_goes_on_with_the_file(old: Path) -> None:
    """Its statements, on a file that this version has written: a rollback, or servers of both."""
    with serving(old):
        pass
    with contextlib.closing(sqlite3.connect(old)) as file, file:
        assert file.execute("PRAGMA user_version").fetchone() == (2,)
        file.execute(
            "INSERT INTO sums VALUES (?, ?, ?, ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET value = value + excluded.value",
            (holdout_series("held", "completion"), "demo", "confidence", 3, "requests", 1.0),
        )
        file.execute("INSERT INTO switched_off VALUES ('demo', 'budget', 1.0, 'why')")
    (row,) = rows(old)
    assert row.compared == 21


# Reports


def test_the_report_says_what_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = tmp_path / "sums.sqlite"
    for changed in ({}, CHANGES["share"] | CHANGES["threshold"]):
        with serving(state, **changed) as savings:
            for key, found in in_stratum(sums(12), stratum(savings)).items():
                savings.store.add(key, found)
    (data,) = as_json(rows(state))["data"]
    first, second = data["strata"]
    assert second["changed"] == {"holdout": [0.5, 0.05], "threshold": [0.95, 0.9]}
    assert (first["changed"], second["requests"], second["in_figures"]) == ({}, 12, True)
    assert first["since"] <= second["since"]
    savings_command(["--state", str(state)])
    table = capsys.readouterr().out
    assert "demo, confidence, holdout: settings changed; 2 strata" in table
    assert "holdout 0.5 → 0.05, threshold 0.95 → 0.9" in table
    assert as_csv(rows(state)).splitlines()[1].endswith(",2")


def test_without_a_change_nothing_is_said_of_strata(tmp_path: Path) -> None:
    with serving(tmp_path / "sums.sqlite") as savings:
        for key, found in in_stratum(sums(12), stratum(savings)).items():
            savings.store.add(key, found)
        assert "strata" not in as_table(as_json(read_estimates(savings.store)))
