"""Dashboards and rules against a real Prometheus that scrapes a real server."""

import contextlib
import json
import math
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry, start_http_server

from scripts.dashboards import BOARDS, FOLDER, SAVINGS, Board, Panel
from service.records.metrics import Metrics
from service.records.sequence import SequenceRecord
from service.savings.measurement import SavingsMeasurement
from service.savings.plan import Plan
from service.savings.state.series import COVERED, EXIT, ArmName, Measure, holdout_series
from service.savings.state.store import Key, RecentKey, SumStore
from stepgrpo_core.savings.estimators import ServedTokens
from tests.support.chat import EXIT as EXITS
from tests.support.chat import messages
from tests.support.observing.prometheus import (
    DEPLOY,
    check_data,
    filled_in,
    query,
    scraping,
    scraping_all,
    tool,
    wait_scrapes,
)
from tests.support.servers import Server

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.background]

# What a holdout and pairs show needs servers with them: see test_holdout.py and test_pairs.py.
PANELS = [
    pytest.param(panel, id=panel.title)
    for board in BOARDS
    for panel in board.panels
    if not panel.title.startswith(("Holdout", "Paired"))
]


@pytest.fixture(scope="module")
def scraped(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus that has seen every kind of traffic twice, so that rates are known."""
    with scraping(server, tmp_path_factory.mktemp("prometheus")) as url:
        for _ in range(2):
            traffic(server)
            wait_scrapes(url, 3)
        yield url


def traffic(server: Server) -> None:
    with httpx.Client(base_url=server.url, timeout=120) as client:
        for policy in ("none", "confidence"):
            for index in range(4):
                client.post("/v1/chat/completions", json=body(index, policy)).raise_for_status()
        stream = body(0, "confidence") | {"stream": True}
        with client.stream("POST", "/v1/chat/completions", json=stream) as answer:
            next(answer.iter_lines())  # and leaves


def body(index: int, policy: str) -> dict[str, Any]:
    return {
        "model": "demo-base",
        "messages": messages(index),
        "max_tokens": 900,
        "vllm_xargs": EXITS | {"exit_policy": policy},
    }


@pytest.mark.parametrize("panel", PANELS)
def test_every_query_of_a_panel_returns_data(scraped: str, panel: Panel) -> None:
    check_data(scraped, panel)


def test_savings_are_positive_and_add_up(scraped: str) -> None:
    by_title = {panel.title: panel for board in BOARDS for panel in board.panels}
    figures = {}
    for title in ("Saved, net", "Saved, gross", "Compression"):
        found = query(scraped, filled_in(by_title[title].queries[0].expr))
        figures[title] = float(found[0]["value"][1])
    assert figures["Saved, gross"] > figures["Saved, net"] > 0
    assert 0 < figures["Compression"] < 1


def test_recorded_rules_have_values(scraped: str) -> None:
    for name in ("net_saved_tokens", "net_saved_share", "probe_share"):
        found = query(scraped, f'model_policy:stepgrpo_{name}:rate5m{{policy="confidence"}}')
        assert math.isfinite(float(found[0]["value"][1])), name
    assert query(scraped, 'ALERTS{alertname="StepgrpoDown"}') == []


# Several servers, of which some share a state file.

GROUPS = 12
REQUESTS = 4
MEASURES: tuple[Measure, ...] = ("completion", "engine")
SIDES: tuple[tuple[ArmName, int], ...] = (("exited", 60), ("held", 100))
PAIR = {"requests": 2, "tokens": 100, "saved": 60, "cost": 10, "pairs": 1, "error": 5, "agreed": 1}


@contextlib.contextmanager
def sharing(state: Path) -> Iterator[str]:
    """URL of the metrics of a server that has served `REQUESTS` requests and entered what they
    show into this file."""
    registry, store = CollectorRegistry(), SumStore(state)
    metrics, savings = Metrics(registry), SavingsMeasurement(Plan(holdout=0.5, state=state), store)
    registry.register(savings)
    for _ in range(REQUESTS):
        record = SequenceRecord(0, "demo", "confidence", 20, status="completed")
        metrics.started(record)
        metrics.ended(record)
    for group in range(GROUPS):
        for side, tokens in SIDES:
            for measure in MEASURES:
                key = Key(holdout_series(side, measure), "demo", "confidence", group)
                store.add(key, ServedTokens.one(tokens, 0)._asdict())
        store.add(Key(EXIT, "demo", "confidence", group), PAIR)
    store.append(RecentKey(COVERED, "demo", "confidence"), *[1.0] * 20)
    store.flush()
    savings.predictions.refresh()
    httpd, thread = start_http_server(0, "127.0.0.1", registry)
    try:
        yield f"http://127.0.0.1:{httpd.server_port}"
    finally:
        httpd.shutdown()
        thread.join()
        httpd.server_close()
        savings.close()


def value_of(url: str, expression: str, **labels: str) -> float:
    """Of the one series that has these labels."""
    found = [
        float(each["value"][1])
        for each in query(url, expression)
        if labels.items() <= each["metric"].items()
    ]
    assert len(found) == 1, (expression, found)
    return found[0]


def test_servers_that_share_a_state_file_are_not_counted_twice(tmp_path: Path) -> None:
    panels = {panel.title: filled_in(panel.queries[0].expr) for panel in SAVINGS.panels}
    with contextlib.ExitStack() as servers:
        shared, own = tmp_path / "shared.sqlite", tmp_path / "own.sqlite"
        urls = [servers.enter_context(sharing(each)) for each in (shared, shared, own)]
        with scraping_all(urls, tmp_path) as url:
            wait_scrapes(url, 3, of=len(urls))
            # Counters are each server's own.
            assert value_of(url, "sum(stepgrpo_requests_total)") == 3 * REQUESTS
            # What two of them know in common is the sum of both, and told once.
            states = query(url, "count by (state) (stepgrpo_state_info)")
            assert sorted(float(each["value"][1]) for each in states) == [1, 2]
            requests = "stepgrpo_holdout_requests{side='held'}"
            assert [float(e["value"][1]) for e in query(url, requests)].count(2 * GROUPS) == 2
            gross = {"measure": "gross", "bound": "value"}
            each = 60 + 2 * 5  # of a group: predicted, and what the predictions lack
            saved = value_of(url, panels["Paired: saved in all"], **gross)
            assert saved == pytest.approx(3 * GROUPS * each)
            assert value_of(url, panels["Holdout: saved per request"], **gross) == 40
            assert value_of(url, panels["Paired: same answer"], bound="value") == 1
            assert value_of(url, panels["Paired: predictions that held"], bound="value") == 1


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_every_panel_has_unit_description_and_place(board: Board) -> None:
    made = json.loads((FOLDER / f"{board.uid}.json").read_text(encoding="utf-8"))
    assert [panel["title"] for panel in made["panels"]] == [each.title for each in board.panels]
    for panel in made["panels"]:
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["datasource"]["uid"] == "prometheus"


@pytest.mark.parametrize(
    "arguments", [["check", "config", "prometheus.yml"], ["test", "rules", "rules_test.yml"]]
)
def test_promtool_accepts_configuration_and_rules(arguments: list[str]) -> None:
    ran = subprocess.run(
        [tool("promtool"), *arguments], cwd=DEPLOY, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
