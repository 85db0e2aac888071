"""Dashboards and rules against a real Prometheus that scrapes a real server."""

import json
import math
import subprocess
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from scripts.dashboards import BOARDS, FOLDER, Board, Panel
from tests.integration.prometheus import (
    DEPLOY,
    check_data,
    filled_in,
    query,
    scraping,
    tool,
    wait_scrapes,
)
from tests.integration.servers import Server
from tests.integration.test_server import EXIT, messages

pytestmark = pytest.mark.integration

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
        "vllm_xargs": EXIT | {"exit_policy": policy},
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
