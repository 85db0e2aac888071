"""A server with a request log, traces and an API key, for all tests of this folder."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.journal import KEY
from tests.support.observing.collector import Collector
from tests.support.servers import CALIBRATED, OURS, Server, running


@pytest.fixture(scope="package")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("journal") / "requests.jsonl"


@pytest.fixture(scope="package")
def collector() -> Iterator[Collector]:
    with Collector().serving() as up:
        yield up


@pytest.fixture(scope="package")
def logged(path: Path, collector: Collector) -> Iterator[Server]:
    tracing = ("--exit-log", str(path), "--otlp-traces-endpoint", collector.url)
    flags = (*tracing, "--api-key", KEY, "--open-metrics")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf")
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")  # milliseconds
        with running(OURS, path.with_name("server.log"), *flags, *CALIBRATED) as up:
            yield up


@pytest.fixture
def client(logged: Server) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=logged.url, headers=headers, timeout=120) as made:
        yield made
