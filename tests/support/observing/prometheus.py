"""A real Prometheus for a server: from PATH, or Debian's package unpacked without root."""

import contextlib
import math
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import yaml

from scripts.dashboards import Panel
from tests.support.servers import ROOT, Server, free_port

DEPLOY = ROOT / "deploy" / "prometheus"
READY_SECONDS = 60.0
VARIABLES = {
    "$model": ".*",
    "$policy": ".*",
    "$price": "0.6",
    "$__rate_interval": "30s",
    "$__range": "5m",
}


def tool(name: str) -> str:
    """Return the path of `promtool` or `prometheus`."""
    found = shutil.which(name)
    return (
        found
        or subprocess.run(
            [ROOT / "scripts" / "prometheus.sh", name], check=True, capture_output=True, text=True
        ).stdout.strip()
    )


@contextlib.contextmanager
def scraping(server: Server, folder: Path) -> Iterator[str]:
    """Yield the URL of a Prometheus with our rules that scrapes `server` every second."""
    with scraping_all([server.url], folder) as url:
        yield url


@contextlib.contextmanager
def scraping_all(servers: Sequence[str], folder: Path) -> Iterator[str]:
    """Yield the URL of one that scrapes several servers."""
    config = yaml.safe_load((DEPLOY / "prometheus.yml").read_text(encoding="utf-8"))
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(DEPLOY / "rules.yml")]
    (job,) = config["scrape_configs"]
    job["static_configs"] = [{"targets": [each.removeprefix("http://") for each in servers]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    address = f"127.0.0.1:{free_port()}"
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                tool("prometheus"),
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={address}",
                "--enable-feature=exemplar-storage",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        wait_ready(f"http://{address}")
        yield f"http://{address}"
    finally:
        process.kill()
        process.wait()


def wait_ready(url: str) -> None:
    """Wait until it answers queries."""
    deadline = time.monotonic() + READY_SECONDS
    while True:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{url}/-/ready", timeout=30).status_code == 200:
                return
        assert time.monotonic() < deadline, "Prometheus did not start"
        time.sleep(0.1)


def query(url: str, expression: str) -> list[dict[str, Any]]:
    """Return the series of an instant query; an error fails."""
    answer = httpx.get(f"{url}/api/v1/query", params={"query": expression}, timeout=30)
    body = answer.json()
    assert body["status"] == "success", (expression, body)
    result: list[dict[str, Any]] = body["data"]["result"]
    return result


def exemplars(url: str, expression: str) -> list[dict[str, Any]]:
    """Return the exemplars of the last minutes, of all series of an expression."""
    now = time.time()
    params = {"query": expression, "start": str(now - 600), "end": str(now + 60)}
    answer = httpx.get(f"{url}/api/v1/query_exemplars", params=params, timeout=30)
    body = answer.json()
    assert body["status"] == "success", (expression, body)
    return [each for series in body["data"] for each in series["exemplars"]]


def filled_in(expression: str) -> str:
    """Return a dashboard's query with values for Grafana's variables."""
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    assert "$" not in expression
    return expression


def check_data(url: str, panel: Panel) -> None:
    """Check that every query of a panel returns a number."""
    for each in panel.queries:
        expression = filled_in(each.expr)
        values = [float(series["value"][1]) for series in query(url, expression)]
        assert any(map(math.isfinite, values)), expression


def wait_scrapes(url: str, count: int, of: int = 1) -> None:
    """Wait until so many more scrapes of each of the servers have succeeded."""
    deadline, wanted = time.monotonic() + 60, None
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            found = query(url, "count_over_time(up[10m])")
            scrapes = min(float(e["value"][1]) for e in found) if len(found) >= of else 0
            wanted = wanted or scrapes + count
            if scrapes >= wanted:
                return
        time.sleep(0.5)
    raise AssertionError(f"no {count} scrapes in a minute")
