"""Real vLLM on this machine: our server and the stock one, each started once per run."""

from collections.abc import Iterator

import openai
import pytest

from tests.support.engines import BLOCKS, CAPACITY, Machine, running_machine
from tests.support.servers import CALIBRATED, OURS, STOCK, Server, free_port, running
from tests.support.service.judging import KEY, LocalJudge
from tests.support.service.keys import FILED, PER_MINUTE, SEATS


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("ours") / "server.log"
    with running(OURS, log, *CALIBRATED, "--exit-effort", "minimal=24") as up:
        yield up


@pytest.fixture(scope="session")
def local_judge() -> Iterator[LocalJudge]:
    with LocalJudge().serving() as judge:
        yield judge


@pytest.fixture(scope="session")
def guarded(local_judge: LocalJudge, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Ours, with two API keys and more in a file, metrics on a port of their own, and a judge
    behind a URL."""
    log = tmp_path_factory.mktemp("guarded") / "server.log"
    judge = ("--exit-verifier-url", local_judge.url, "--exit-verifier-timeout", "5")
    file = log.with_name("keys")
    file.write_text(FILED)
    keys = ("--api-key", "mine", "yours", "--api-key-file", str(file))
    limits = ("--key-concurrency", str(SEATS), "--key-rate", str(PER_MINUTE))
    port = str(free_port())
    metrics = ("--metrics-port", port)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STEPGRPO_VERIFIER_API_KEY", KEY)
        with running(OURS, log, *keys, *limits, *metrics, *judge) as up:
            up.scraped = f"http://127.0.0.1:{port}"
            yield up


@pytest.fixture(scope="session")
def stock(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    del server  # one after the other: two cores
    log = tmp_path_factory.mktemp("stock") / "server.log"
    with running(STOCK, log, "--no-enable-chunked-prefill", "--block-size", "32") as up:
        yield up


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    """vLLM in this process: small, with priorities and an adapter.

    When it runs as many sequences as it may, its cache is full."""
    with running_machine(
        max_num_seqs=CAPACITY,
        block_size=32,
        num_gpu_blocks_override=BLOCKS,
        scheduling_policy="priority",
        enable_lora=True,
    ) as up:
        yield up


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=120
    ) as made:
        yield made
