"""Strata: what is changed on the same file never invents savings, and nothing is lost."""

import contextlib
import dataclasses
import json
import math
import os
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from vllm.engine.arg_utils import EngineArgs
from vllm.sampling_params import SamplingParams

from service.engine.request import EngineRequest
from service.params.effort import EFFORT
from service.params.limits import ProbeLimits
from service.records.sequence import SequenceRecord
from service.savings.command import savings_command
from service.savings.estimates import Row, rows_of
from service.savings.facts import engine_facts, settings_facts, weights_of
from service.savings.measurement import SavingsMeasurement, open_measurement
from service.savings.plan import Plan
from service.savings.quality_gate import QualityGate
from service.savings.report import as_csv, as_json, as_table, read_rows
from service.savings.state.contents import cell, group_of, stratum_of
from service.savings.state.series import EXIT, Measure, Side, holdout
from service.savings.state.store import Key, Sums, SumStore
from stepgrpo_core import ExitSettings
from stepgrpo_core.savings.estimators import (
    Measured,
    ServedTokens,
    compare,
    compare_strata,
    total_savings,
)
from stepgrpo_core.savings.holdout import GROUPS, Arm
from stepgrpo_core.savings.intervals import Estimate, combined
from tests.support.service.sums import pairs, sums

MODEL = Path(__file__).parents[2] / "models" / "demo-base"
MEASURES: tuple[Measure, ...] = ("completion", "engine")
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


# Figures.


class Period:
    """Conversations of a length in tokens, of which a share is held out; exits save `saved`."""

    def __init__(self, count: int, tokens: float, share: float, saved: float = 0.0) -> None:
        self.count, self.tokens, self.share, self.saved = count, tokens, share, saved

    def sums(self, rng: np.random.Generator, stratum: int) -> dict[Key, dict[str, float]]:
        held = rng.random(self.count) < self.share
        groups = rng.integers(0, GROUPS, self.count)
        tokens = rng.lognormal(np.log(self.tokens), 0.3, self.count) - self.saved * ~held
        found: dict[Key, dict[str, float]] = {}
        sides: tuple[tuple[Side, Any], ...] = (("held", held), ("exited", ~held))
        for side, chosen in sides:
            for group in range(GROUPS):
                of = tokens[chosen & (groups == group)]
                entry = ServedTokens(len(of), float(of.sum()))._asdict()
                for measure in MEASURES:
                    key = Key(holdout(side, measure), "demo", "confidence", cell(stratum, group))
                    found[key] = entry
        return found


def pooled(sums: Mapping[Key, Sums]) -> dict[Key, Sums]:
    """As if settings had never changed."""
    found: dict[Key, Sums] = {}
    for key, named in sums.items():
        one = key._replace(group=group_of(key.group))
        here = found.get(one, {})
        found[one] = {name: here.get(name, 0) + value for name, value in named.items()}
    return found


def saved(sums: Mapping[Key, Sums]) -> Estimate:
    (row,) = rows_of(sums)
    assert row.figures is not None
    return row.figures.saved_per_request


def test_exits_that_save_nothing_save_nothing_after_another_share_and_shorter_conversations() -> (
    None
):
    rng = np.random.default_rng(1)
    long, short = Period(1000, 1000, share=0.5), Period(4000, 200, share=0.05)
    covered, invented, runs = 0, 0, 300
    for _ in range(runs):
        both = long.sums(rng, 1) | short.sums(rng, 2)
        interval = saved(both)
        covered += interval.low <= 0 <= interval.high
        invented += saved(pooled(both)).low > 0
    assert 0.92 <= covered / runs <= 0.98
    assert invented == runs  # what strata are for


def test_what_exits_save_is_weighted_by_who_exited() -> None:
    rng = np.random.default_rng(2)
    long, short = Period(1000, 1000, 0.5, saved=300), Period(4000, 200, 0.05, saved=20)
    truth = (0.5 * 1000 * 300 + 0.95 * 4000 * 20) / (0.5 * 1000 + 0.95 * 4000)
    covered, runs = 0, 300
    for _ in range(runs):
        interval = saved(long.sums(rng, 1) | short.sums(rng, 2))
        covered += interval.low <= truth <= interval.high
    assert 0.92 <= covered / runs <= 0.98


def test_strata_by_hand() -> None:
    """Equal groups, so there is no error: 40 saved by 12, and 10 saved by 36."""

    def sides(requests: int, exited: float, held: float) -> tuple[dict[int, ServedTokens], ...]:
        one = {g: ServedTokens(requests, requests * exited) for g in range(12)}
        return one, {g: ServedTokens(1, held) for g in range(12)}

    first, second = sides(1, 60, 100), sides(3, 20, 30)
    found = compare_strata(first, second)  # type: ignore[arg-type]
    assert found is not None
    assert found.saved.value == pytest.approx((12 * 40 + 36 * 10) / 48)
    assert found.ratio.value == pytest.approx((12 * 60 + 36 * 20) / (12 * 100 + 36 * 30))
    assert (found.treatment, found.control) == (48, 24)
    assert compare_strata(first) == compare(*first)  # type: ignore[arg-type]


def test_totals_of_strata_add_up_and_their_errors_by_squares() -> None:
    one = {g: Measured(2, 100, 60, 10, pairs=1, error=g % 3) for g in range(12)}
    other = {g: Measured(20, 1000, 90, 10, pairs=1, error=50 * (g % 2)) for g in range(12)}
    found, parts = total_savings(one, other), (total_savings(one), total_savings(other))
    assert found is not None
    assert parts[0] is not None
    assert parts[1] is not None
    assert found.value == parts[0].value + parts[1].value
    assert found.high - found.value == pytest.approx(
        math.hypot(*(each.high - each.value for each in parts if each))
    )
    assert total_savings(one, {}) == parts[0]


def test_weights_of_intervals() -> None:
    found = combined([(0.25, Estimate(8, 4, 20)), (0.75, Estimate(4, 0, 8))])
    assert found == Estimate(5, 5 - math.hypot(1, 3), 5 + math.hypot(3, 3))


def in_stratum(sums: Mapping[Key, Sums], stratum: int) -> dict[Key, Sums]:
    return {key._replace(group=cell(stratum, key.group)): each for key, each in sums.items()}


def test_a_stratum_with_too_little_in_it_is_left_out_of_the_figures_and_counted() -> None:
    """Of pairs likewise: their savings and what they cost are of the same requests."""
    for make, figure in ((sums, 40.0), (pairs, 1120 / 48)):
        alone = rows_of(make(16))[0]
        (row,) = rows_of(make(16) | in_stratum(make(5), 7))
        assert row.figures is not None
        assert row.figures.saved_per_request.value == pytest.approx(figure)
        assert row.figures == alone.figures
        assert row.requests > alone.requests
        assert [part.told for part in row.parts] == [True, False]


def test_agreement_is_weighted_by_who_exited() -> None:
    judged: Sums = {"requests": 10, "agreed": 10}
    other: Sums = {"requests": 30, "agreed": 5, "differed": 5}
    found = {Key(EXIT, "demo", "confidence", 0): judged}
    found[Key(EXIT, "demo", "confidence", cell(3, 0))] = other
    (row,) = rows_of(found)
    assert row.agreement is not None
    assert row.agreement.value == pytest.approx(0.25 * 1 + 0.75 * 0.5)
    assert row.judged == 20


# Which requests are in one stratum.

SETTINGS = ExitSettings(policy="confidence", threshold=0.95)
PLAN = Plan(holdout=0.5)


@contextlib.contextmanager
def serving(
    state: Path,
    plan: Plan = PLAN,
    settings: ExitSettings = SETTINGS,
    limits: ProbeLimits = ProbeLimits(),  # noqa: B008 - frozen
    facts: Mapping[str, Any] = {"max_model_len": 4096},
    weights: Mapping[str | None, str] = {None: "a"},
) -> Iterator[SavingsMeasurement]:
    """What a server with these settings has of a file."""
    savings = SavingsMeasurement(dataclasses.replace(plan, state=state), SumStore(state), weights)
    savings.facts |= facts
    decider = SimpleNamespace(defaults=settings, limits=limits, effort=EFFORT)
    savings.start(SimpleNamespace(writing=None), None, "demo", decider)  # type: ignore[arg-type]
    try:
        yield savings
    finally:
        savings.close()


def job(**lora: Any) -> EngineRequest:
    options = {"lora_request": SimpleNamespace(**lora)} if lora else {}
    return EngineRequest("chatcmpl-1", {"prompt_token_ids": [1]}, SamplingParams(), options)


def stratum(savings: SavingsMeasurement, model: str = "demo", **lora: Any) -> int:
    record = SequenceRecord(0, model, "confidence", prompt_tokens=1)
    savings.sort(job(**lora), [record])
    return record.stratum


CHANGES: dict[str, dict[str, Any]] = {
    "share": {"plan": Plan(holdout=0.05)},
    "share of pairs": {"plan": Plan(holdout=0.5, pairs=0.1)},
    "base of pairs": {"plan": Plan(holdout=0.5, pairs=0.1, pairs_base="base")},
    "base of the holdout": {"plan": Plan(holdout=0.5, holdout_base="demo")},
    "threshold": {"settings": dataclasses.replace(SETTINGS, threshold=0.9)},
    "policy": {"settings": dataclasses.replace(SETTINGS, policy="confidence+repetition")},
    "closing text": {"settings": dataclasses.replace(SETTINGS, closing_text="\nSo.\n</think>\n\n")},
    "inducing prompt": {"settings": dataclasses.replace(SETTINGS, inducing_prompt="Answer:")},
    "markers": {"settings": dataclasses.replace(SETTINGS, markers=("Hmm",))},
    "shadow": {"settings": dataclasses.replace(SETTINGS, shadow=True)},
    "load of probes": {"limits": ProbeLimits(probe_load=0.5)},
    "weights": {"weights": {None: "b"}},
    "length": {"facts": {"max_model_len": 2048}},
}


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


def test_facts_tell_no_addresses() -> None:
    plan = Plan(pairs=0.1, pairs_url="http://replica.internal:8000/v1")
    settings = ExitSettings(verifier_url="http://judge.internal:8000/v1")
    text = json.dumps(settings_facts(plan, settings, ProbeLimits(), EFFORT))
    assert "internal" not in text
    other = dataclasses.replace(plan, pairs_url="http://other.internal:8000/v1")
    assert json.dumps(settings_facts(other, settings, ProbeLimits(), EFFORT)) != text


def test_facts_of_an_engine_can_be_kept_and_tell_it_from_others() -> None:
    def facts(**options: Any) -> str:
        model = EngineArgs(model=str(MODEL), **options).create_model_config()
        return json.dumps(engine_facts(SimpleNamespace(model_config=model), None))

    assert facts() == facts()
    for options in (
        {"max_model_len": 1024},
        {"dtype": "float32"},
        {"override_generation_config": {"temperature": 0.1}},
    ):
        assert facts(**options) != facts()


def test_weights_are_told_by_what_is_in_them(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(os.urandom(3_000_000))
    (model / "README.md").write_text("a model")
    first = weights_of(model)
    shutil.copytree(model, tmp_path / "copy")
    (tmp_path / "copy" / "README.md").write_text("a copy")
    assert weights_of(tmp_path / "copy") == first
    (model / "model.safetensors").write_bytes(os.urandom(3_000_000))
    assert weights_of(model) != first
    (tmp_path / "copy" / "config.json").write_text('{"rope_theta": 1}')
    assert weights_of(tmp_path / "copy") != first
    assert weights_of(Path("some/name-on-a-hub")) == ""
    assert weights_of(model / "config.json") != ""


def test_a_calibration_of_its_own_is_a_fact(tmp_path: Path) -> None:
    (tmp_path / "calibration.json").write_text("{}")
    savings = open_measurement(PLAN, {None: tmp_path}, tmp_path / "calibration.json")
    assert savings is not None
    assert savings.facts["calibration"] == weights_of(tmp_path / "calibration.json")
    savings.close()


def test_requests_are_entered_in_their_stratum(tmp_path: Path) -> None:
    with serving(tmp_path / "sums.sqlite") as savings:
        record = SequenceRecord(0, "demo", "confidence", 1, place=Arm(control=True, group=63))
        savings.sort(job(), [record])
        savings.ended(job(), record, None)
        keys = savings.store.read("holdout/held/")
        assert {stratum_of(key.group) for key in keys} == {stratum(savings)} != {0}
        assert {group_of(key.group) for key in keys} == {63}
    store = SumStore(tmp_path / "sums.sqlite")  # and is read again
    assert store.read("holdout/held/") == keys
    store.close()


# The guard.


def test_a_verdict_holds_for_what_was_judged(tmp_path: Path) -> None:
    state = tmp_path / "sums.sqlite"
    plan = Plan(holdout=0.5, pairs=0.1, agreement=0.9, agreement_pairs=40)
    other = {"settings": dataclasses.replace(SETTINGS, threshold=0.99)}
    with serving(state, plan) as savings:
        for _ in range(50):
            savings.guard.enter("demo", "confidence", agreed=False)
        savings.guard.look()
        assert savings.guard.is_off("demo", "confidence")
    for changed, off in ((other, False), ({}, True), ({"plan": Plan(holdout=0.1)}, True)):
        with serving(state, **{"plan": plan, **changed}) as savings:  # type: ignore[arg-type]
            savings.guard.look()
            assert savings.guard.is_off("demo", "confidence") is off
            assert bool(savings.complaints()) is off
    with serving(state, plan, **other) as savings:  # type: ignore[arg-type]
        savings.guard.enter("demo", "confidence", agreed=True)
        savings.guard.look()
        assert not savings.guard.is_off("demo", "confidence")  # nor do its pairs count with others
    store = SumStore(state)
    assert store.switch_on("demo", "confidence")
    assert store.switched_off() == []
    store.close()


# Files of before.


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """With 40 tokens saved by each of 20, and 20 held out."""
    path = tmp_path / "sums.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as file, file:
        file.executescript(OLD)
        rows = [(*key, *each) for key, named in sums(20).items() for each in named.items()]
        file.executemany("INSERT INTO sums VALUES (?, ?, ?, ?, ?, ?)", rows)
    return path


def rows(path: Path) -> list[Row]:
    store = SumStore(path)
    found = read_rows(store)
    store.close()
    return found


def test_sums_of_before_are_a_stratum_and_nothing_is_lost(
    old: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(old) as savings:
        assert savings.guard.is_off("demo", "margin")  # whatever the settings were
        here = stratum(savings)
        for key, found in in_stratum(sums(15), here).items():
            savings.store.add(key, found)
    (row,) = rows(old)
    assert (row.requests, row.compared) == (35, 35)
    assert [(part.since is None, part.requests) for part in row.parts] == [(True, 20), (False, 15)]
    assert row.figures is not None
    assert row.figures.saved_total.value == pytest.approx(35 * 40)
    assert "an earlier version did not note its settings" in caplog.text


def test_a_version_before_goes_on_with_the_file(old: Path) -> None:
    """Its statements, on a file that this version has written: a rollback, or servers of both."""
    with serving(old):
        pass
    with contextlib.closing(sqlite3.connect(old)) as file, file:
        assert file.execute("PRAGMA user_version").fetchone() == (2,)
        file.execute(
            "INSERT INTO sums VALUES (?, ?, ?, ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET value = value + excluded.value",
            (holdout("held", "completion"), "demo", "confidence", 3, "requests", 1.0),
        )
        file.execute("INSERT INTO switched_off VALUES ('demo', 'budget', 1.0, 'why')")
    (row,) = rows(old)
    assert row.compared == 21


# Who is told.


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
    assert "demo, confidence, holdout: 2 strata" in table
    assert "holdout 0.5 → 0.05, threshold 0.95 → 0.9" in table
    assert as_csv(rows(state)).splitlines()[1].endswith(",2")


def test_without_a_change_nothing_is_said_of_strata(tmp_path: Path) -> None:
    with serving(tmp_path / "sums.sqlite") as savings:
        for key, found in in_stratum(sums(12), stratum(savings)).items():
            savings.store.add(key, found)
        assert "strata" not in as_table(as_json(read_rows(savings.store)))


def test_a_guard_without_fingerprints_judges_all(tmp_path: Path) -> None:
    store = SumStore(tmp_path / "sums.sqlite")
    guard = QualityGate(store, Plan(pairs=0.1, agreement=0.9, agreement_pairs=40))
    for _ in range(50):
        guard.enter("demo", "confidence", agreed=False)
    guard.look()
    assert guard.is_off("demo", "confidence")
    store.close()
