"""A damaged state file: all other metrics are served, and a warning reports the damage."""

import contextlib
import json
import logging
import random
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, generate_latest

from service.savings.command import guard_command, savings_command
from service.savings.estimates import estimate_savings
from service.savings.measurement import SavingsMeasurement
from service.savings.plan import Plan
from service.savings.report import as_csv, as_json, as_table
from service.savings.state import store as stores
from service.savings.state.contents import LARGEST, NAMES, Stratum, cell
from service.savings.state.series import EXIT, JUDGED, SCORES
from service.savings.state.store import Key, RecentKey, SumStore, SwitchedOff
from stepgrpo_core import InvalidSetting
from tests.support.service.sums import pairs, sums

PAGE = 4096
FIGURES = ("stepgrpo_holdout_", "stepgrpo_measured_", "stepgrpo_agreement_")
Damage = Callable[[Path], object]


def fill(path: Path) -> None:
    """A file as a server leaves it, with something in every table."""
    store = SumStore(path)
    store.add_stratum(7, Stratum("demo", 1.0, {"holdout": 0.5}))
    for key, found in (sums(30) | pairs(30)).items():
        store.add(key, found)
        store.add(key._replace(group=cell(7, key.group)), found)
    store.append(RecentKey(JUDGED, "demo", "confidence"), *[1.0] * 40)
    store.append(RecentKey(SCORES, "demo", "confidence"), *map(float, range(40)))
    store.switch_off(SwitchedOff("demo", "budget", 1.0, "too many differ"))
    store.switch_off(SwitchedOff("demo", "margin", 1.0, "too many differ", "abc"))
    store.secret("holdout")
    store.secret("state")
    store.close()


def sql(*statements: str) -> Damage:
    def damage(path: Path) -> None:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as file:
            for statement in (*statements, "PRAGMA wal_checkpoint(TRUNCATE)"):
                file.execute(statement)

    return damage


def page_of(path: Path, name: str) -> int:
    with contextlib.closing(sqlite3.connect(path)) as file:
        of = "SELECT rootpage FROM sqlite_schema WHERE name = ?"
        (page,) = file.execute(of, (name,)).fetchone()
    return int(page)


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def page(name: str, data: bytes = b"\xa5" * PAGE) -> Damage:
    return lambda path: overwrite(path, (page_of(path, name) - 1) * PAGE, data)


def last_page(path: Path) -> None:
    overwrite(path, path.stat().st_size - PAGE, b"\xa5" * PAGE)


def cut(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2 // PAGE * PAGE)


def write(text: bytes) -> Damage:
    return lambda path: path.write_bytes(text)


def foreign(path: Path) -> None:
    path.unlink()
    sql("CREATE TABLE sums (id INTEGER PRIMARY KEY, total TEXT)")(path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def not_a_number(path: Path) -> None:
    """The bytes of a value, which SQLite reads as NULL when they are no number."""
    sql("UPDATE sums SET value = 1234567.25 WHERE series LIKE 'pairs/%'")(path)
    data = path.read_bytes()
    one, nan = b"\x41\x32\xd6\x87\x40\x00\x00\x00", b"\x7f\xf8" + bytes(6)
    assert one in data
    path.write_bytes(data.replace(one, nan))


FIRST = "WHERE series = 'holdout/exited/completion' AND random_group = 3 AND name = 'tokens'"
COMPLAINED: dict[str, Damage] = {
    "page of sums": page("sums"),
    "page of sums, zeros": page("sums", bytes(PAGE)),
    "page of recent": page("recent"),
    "page of the index": page("recent_by_series"),
    "page of secrets": page("secrets"),
    "page of verdicts": page("switched_off"),
    "page of strata": page("strata"),
    "last page": last_page,
    "text value": sql(f"UPDATE sums SET value = 'many' {FIRST}"),
    "blob value": sql(f"UPDATE sums SET value = x'00ff' {FIRST}"),
    "infinite value": sql(f"UPDATE sums SET value = 9e999 {FIRST}"),
    "value that is no number": not_a_number,
    "value that overflows": sql(f"UPDATE sums SET value = 1e300 {FIRST}"),
    "negative requests": sql(f"UPDATE sums SET value = -5 {FIRST.replace('tokens', 'requests')}"),
    "name of a later version": sql(
        "INSERT INTO sums VALUES ('holdout/held/engine', 'demo', 'confidence', 1, 'squares', 4.0)"
    ),
    "name of a later version, of pairs": sql(
        f"INSERT INTO sums VALUES ('{EXIT}', 'demo', 'confidence', 1, 'regretted', 4.0)"
    ),
    "group that is text": sql(f"UPDATE sums SET random_group = 'first' {FIRST}"),
    "group with a fraction": sql(f"UPDATE sums SET random_group = 3.5 {FIRST}"),
    "negative group": sql(f"UPDATE sums SET random_group = -1 {FIRST}"),
    "group of an unknown stratum": sql(f"UPDATE sums SET random_group = 64000 {FIRST}"),
    "model that is a blob": sql(f"UPDATE sums SET model = x'c328' {FIRST}"),
    "model that is no UTF-8": sql(f"UPDATE sums SET model = CAST(x'c328' AS TEXT) {FIRST}"),
    "judged pair of two": sql(f"UPDATE recent SET value = 2 WHERE series = '{JUDGED}'"),
    "score that is text": sql(f"UPDATE recent SET value = 'x' WHERE series = '{SCORES}'"),
    "secret that is text": sql("UPDATE secrets SET value = 'open'"),
    "secret that is short": sql("UPDATE secrets SET value = x'00'"),
    "verdict of no time": sql("UPDATE switched_off SET since = 'yesterday'"),
    "verdict of the far future": sql("UPDATE verdicts SET since = 1e300"),
    "settings that are no JSON": sql("UPDATE strata SET facts = '{'"),
    "settings that are a list": sql("UPDATE strata SET facts = '[]'"),
    "count that is text": sql("UPDATE writers SET flushes = 'twice'"),
}
"""What leaves a file that can be opened."""
REFUSED: dict[str, Damage] = {
    "text": write(b"a shopping list, longer than the header of a database is, by far; " * 90),
    "half a header": write(b"SQLite format 3\0" + bytes(20)),
    "header overwritten": lambda path: overwrite(path, 0, b"\xa5" * 100),
    "page of the schema": lambda path: overwrite(path, 100, b"\xa5" * (PAGE - 100)),
    "version of later": sql("PRAGMA user_version = 99"),
    "table of somebody else": foreign,
    "column of somebody else": sql("ALTER TABLE sums ADD COLUMN more"),
    "column gone": sql("ALTER TABLE switched_off DROP COLUMN why"),
    "column of another type": sql(
        "DROP TABLE secrets", "CREATE TABLE secrets (name TEXT PRIMARY KEY, value TEXT)"
    ),
    "version gone, other tables": sql("PRAGMA user_version = 0", "CREATE TABLE notes (text)"),
    "cut in the middle": cut,
    "folder": folder,
}
"""What is no file of sums."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "sums.sqlite"
    fill(path)
    return path


@pytest.fixture
def path(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(stores, "EVERY_SECONDS", 0.05)
    return Path(shutil.copy(whole, tmp_path / "sums.sqlite"))


@contextlib.contextmanager
def scraped(path: Path) -> Iterator[tuple[SavingsMeasurement, Callable[[], str]]]:
    """What a server has of the file, and what its scrapes say."""
    registry = CollectorRegistry()
    Counter("others", "Of others.", registry=registry).inc()
    evidence = SavingsMeasurement(Plan(holdout=0.5, state=path), SumStore(path))
    registry.register(evidence)
    try:
        yield evidence, lambda: generate_latest(registry).decode()
    finally:
        evidence.close()


def figures(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(FIGURES)]


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_whatever_sums_a_file_may_hold_there_is_a_report() -> None:
    """Rows can be missing, or be of a later version's series; values are any that are let in."""
    draw = random.Random(1)
    values = [0.0, 0.0, 1.0, 2.0, 1e-9, 1e9, LARGEST]
    series = [*NAMES, "holdout/other/completion", "pairs/exits", "judging"]
    for _ in range(300):
        found: dict[Key, dict[str, float]] = {}
        for each in draw.sample(series, 4):
            for group in range(draw.choice([3, 15])):
                for stratum in (0, 7):
                    key = Key(each, "demo", "confidence", cell(stratum, group))
                    names = [*NAMES.get(each, ["requests"])]
                    found[key] = {
                        name: draw.choice(values) for name in names if draw.random() < 0.8
                    }
        rows = estimate_savings(found)
        json.dumps(as_json(rows), allow_nan=False)
        as_csv(rows)
        as_table(as_json(rows))


def test_a_whole_file_has_figures_and_no_complaint(path: Path) -> None:
    with scraped(path) as (evidence, scrape):
        assert len(figures(scrape())) > 10
        assert "stepgrpo_state_unavailable 0.0" in scrape()
        assert not any("state file" in each for each in evidence.warnings())


@pytest.mark.parametrize("kind", COMPLAINED)
def test_of_a_damaged_file_the_figures_are_missing_and_nothing_else(
    path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    COMPLAINED[kind](path)
    with caplog.at_level(logging.INFO), scraped(path) as (evidence, scrape):
        evidence.store.add(Key(EXIT, "demo", "confidence", 1), {"requests": 1.0})
        seen = evidence.store.failures
        until(lambda: evidence.store.failures >= seen + 3)
        text = scrape()
        assert not figures(text)
        assert "others_total 1.0" in text
        assert "stepgrpo_state_unavailable 1.0" in text
        (complaint,) = (each for each in evidence.warnings() if "state file" in each)
        assert "damaged" in complaint
        assert "move it away" in complaint
        assert "\n" not in complaint
        (line,) = (each.message for each in caplog.records if str(path) in each.message)
        assert "damaged" in line
        assert "\n" not in line


@pytest.mark.parametrize("kind", ["page of sums", "text value", "judged pair of two"])
def test_a_damaged_file_that_is_moved_away_is_made_anew(path: Path, kind: str) -> None:
    COMPLAINED[kind](path)
    key = Key(EXIT, "demo", "confidence", 1)
    with scraped(path) as (evidence, scrape):
        evidence.store.add(key, {"requests": 1.0})
        path.rename(path.with_suffix(".damaged"))
        until(lambda: evidence.store.problem is None)
        assert "stepgrpo_state_unavailable 0.0" in scrape()
    store = SumStore(path)
    assert store.problem is None
    assert store.read("") == {key: {"requests": 1.0}}
    store.close()


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_file_of_sums_is_refused_at_start_and_left_alone(path: Path, kind: str) -> None:
    REFUSED[kind](path)
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(InvalidSetting, match=str(path)) as refusal:
        SumStore(path)
    assert "\n" not in str(refusal.value)
    assert "move this one away" in str(refusal.value)
    assert before == (path.read_bytes() if path.is_file() else b"")


@pytest.mark.parametrize("kind", [*COMPLAINED, *REFUSED])
def test_commands_say_in_one_line_what_is_wrong_and_what_to_do(path: Path, kind: str) -> None:
    (COMPLAINED | REFUSED)[kind](path)
    for name, command in (("savings", savings_command), ("guard", guard_command)):
        with pytest.raises(SystemExit) as ended:
            command(["--state", str(path)])
        said = str(ended.value)
        assert said.startswith(f"stepgrpo-serve {name}: ")
        assert path.name in said
        assert "\n" not in said
        assert "away" in said or kind == "folder"  # which is not there, as a file


@pytest.mark.parametrize("kind", [*COMPLAINED, *REFUSED])
def test_damage_while_the_server_runs_is_noticed(path: Path, kind: str) -> None:
    """As by another program; SQLite's own journal is in the file, as after a checkpoint."""
    with scraped(path) as (evidence, scrape):
        assert figures(scrape())
        with contextlib.closing(sqlite3.connect(path)) as file:
            file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (COMPLAINED | REFUSED)[kind](path)
        until(lambda: evidence.store.problem is not None)
        text = scrape()
        assert "others_total 1.0" in text
        assert "stepgrpo_state_unavailable 1.0" in text
        assert not figures(text) or "cannot be read" in str(evidence.store.problem)
