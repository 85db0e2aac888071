"""A state file that another program keeps locked: nothing waits for it but the store's thread."""

import contextlib
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry

from service.access.scrape import metrics_app
from service.http.health import Readiness
from service.http.routes import Routes
from service.savings.measurement import SavingsMeasurement
from service.savings.plan import Plan
from service.savings.state.series import EXIT
from service.savings.state.store import Key, SumStore
from tests.support.service.sums import pairs, sums

KEY = Key(EXIT, "demo", "confidence", 1)
SECONDS = 0.15  # three times what is promised


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sums.sqlite"


@pytest.fixture
def savings(path: Path) -> Iterator[SavingsMeasurement]:
    plan = Plan(holdout=0.5, pairs=0.1, agreement=0.9, agreement_pairs=40, state=path)
    made = SavingsMeasurement(plan, SumStore(path))
    for key, found in (sums(30) | pairs(30)).items():
        made.store.add(key, found)
    made.store.flush()
    yield made
    made.close()


@pytest.fixture
def client(savings: SavingsMeasurement) -> Iterator[TestClient]:
    """A server with one event loop, as far as it concerns the file."""
    registry = CollectorRegistry()
    registry.register(savings)
    app = FastAPI()
    app.add_middleware(Routes)
    app.add_middleware(Readiness)
    app.mount("/other-port", metrics_app(registry))
    engine = SimpleNamespace(savings=savings, readiness="ready", warnings=[])
    app.state.engine_client = engine

    @app.middleware("http")
    async def complain(request, call_next):  # type: ignore[no-untyped-def]
        engine.warnings = savings.warnings()
        return await call_next(request)

    with TestClient(app) as made:
        yield made


@contextlib.contextmanager
def locked(path: Path, how: str) -> Iterator[None]:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute(how)
        yield
        other.execute("ROLLBACK")


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("how", ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
def test_while_it_is_locked_everything_is_served_from_memory(
    path: Path,
    savings: SavingsMeasurement,
    client: TestClient,
    how: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = savings.store
    before = store.read(EXIT)[KEY]["requests"]
    with caplog.at_level(logging.INFO, "vllm.stepgrpo"), locked(path, how):
        until(lambda: store.problem)
        for count in range(1, 31):
            began = time.monotonic()
            store.add(KEY, {"requests": 1.0})
            savings.quality_gate.record("demo", "confidence", agreed=True)
            scrape = client.get("/other-port/metrics").text
            row = client.get("/v1/stepgrpo/savings").json()["data"][-1]
            ready = client.get("/ready")
            assert time.monotonic() - began < 3 * SECONDS
            assert 'stepgrpo_holdout_saved_tokens{bound="low"' in scrape
            assert "stepgrpo_state_unavailable 1.0" in scrape
            assert row["method"] == "measured"
            assert row["requests"] == 30 * 3 + count  # up to now
            assert ready.status_code == 200
            assert "the state file cannot be read or written (database is locked)" in ready.text
            time.sleep(0.1)
    until(lambda: store.problem is None)
    assert client.get("/ready").text == "ready"
    store.flush()
    with contextlib.closing(sqlite3.connect(path)) as file:
        of = "SELECT value FROM sums WHERE series = ? AND random_group = 1 AND name = 'requests'"
        assert file.execute(of, (EXIT,)).fetchone() == (before + 30,)
    logged = [each.message for each in caplog.records if str(path) in each.message]
    assert len(logged) == 2
    assert "locked" in logged[0]
    assert "writable again" in logged[1]


def test_a_lock_is_noticed_though_there_is_nothing_to_write(
    path: Path, savings: SavingsMeasurement
) -> None:
    with locked(path, "BEGIN IMMEDIATE"):
        until(lambda: savings.store.problem)
    until(lambda: savings.store.problem is None)


def test_one_scrape_takes_no_longer_than_promised(
    path: Path, client: TestClient, savings: SavingsMeasurement
) -> None:
    client.get("/other-port/metrics")
    with locked(path, "BEGIN EXCLUSIVE"):
        until(lambda: savings.store.problem)
        times = []
        for _ in range(20):
            began = time.monotonic()
            client.get("/other-port/metrics")
            times.append(time.monotonic() - began)
    assert max(times) < SECONDS


def test_a_server_that_ends_while_it_is_locked_waits_seconds_only_and_says_what_is_lost(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = SumStore(path)
    with locked(path, "BEGIN IMMEDIATE"):
        store.add(KEY, {"requests": 1.0})
        began = time.monotonic()
        store.close()
        assert time.monotonic() - began < 15
    assert "could not be written and are lost" in caplog.text


def test_a_file_that_is_locked_at_start_is_refused_with_the_remedy(path: Path) -> None:
    SumStore(path).close()
    with locked(path, "BEGIN EXCLUSIVE"), pytest.raises(ValueError, match="end the program that"):
        SumStore(path)
