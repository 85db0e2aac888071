"""Servers as subprocesses, and readers of their metrics."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.support.zygote import SHARED, Process

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "models" / "demo-base"
STARTUP_SECONDS = 240
# On CPUs our engine computes in its scheduler's process. Stock vLLM starts a worker, for which its
# scheduler busy-waits: half of two cores.
EXECUTOR = "vllm.v1.executor.uniproc_executor.UniProcExecutor"
OWN_WORKER = ("--distributed-executor-backend", "mp")
# Stock vLLM gets the same flags, for a fair comparison.
COMMON = (
    *("--served-model-name", "demo-base", "--dtype", "float32", "--max-model-len", "2048"),
    *("--enforce-eager", "--reasoning-parser", "qwen3", "--seed", "0"),
    *("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
    # The demo model cannot write JSON: unconstrained, it would write white space without end.
    *("--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}'),
)
OURS = (sys.executable, "-m", "service.cli", str(MODEL))
STOCK = (
    *(sys.executable, "-m", "vllm.entrypoints.launchers.api_server.entry", "--model", str(MODEL)),
    *("--distributed-executor-backend", EXECUTOR),
)
CALIBRATED = ("--exit-calibration", str(MODEL / "calibration.json"))


@dataclass
class Starting:
    """The start of servers: benchmarks run a program, tests fork a process that has the imports."""

    launch: Callable[..., Process] = subprocess.Popen


STARTING = Starting()


@dataclass
class Server:
    process: Process
    url: str
    log: Path
    scraped: str = ""
    """URL of its metrics, if they have their own port."""
    noisy: list[tuple[int, int]] = field(default_factory=list)
    """Ranges of its log, in bytes, in which vLLM writes tracebacks of requests that it refuses."""

    def said(self) -> str:
        """Return its log without those ranges."""
        log = self.log.read_bytes()
        for begin, end in reversed(self.noisy):
            log = log[:begin] + log[end:]
        return log.decode()

    def scrape(self) -> list[str]:
        """Return the lines of its metrics."""
        return httpx.get(f"{self.scraped or self.url}/metrics", timeout=30).text.splitlines()

    def metrics(self) -> dict[str, float]:
        """Return the sum over labels of every sample, by name."""
        sums: dict[str, float] = {}
        for line in self.scrape():
            if match := re.match(r"([a-zA-Z_:]+)(?:\{.*\})? ([0-9.eE+-]+|NaN)$", line):
                sums[match[1]] = sums.get(match[1], 0) + float(match[2])
        return sums

    def by(self, name: str, label: str) -> Counter[str]:
        """Return the samples of a counter, summed by one of its labels."""
        sums = Counter[str]()
        for line in self.scrape():
            if line.startswith(f"{name}{{") and (match := re.search(rf'\b{label}="([^"]*)"', line)):
                sums[match[1]] += int(float(line.rpartition(" ")[2]))
        return sums

    def wait_idle(self, seconds: float) -> float:
        """Wait until the engine runs nothing and return the seconds; fail after `seconds`."""
        started = time.monotonic()
        while time.monotonic() - started < seconds:
            now = self.metrics()
            busy = now["vllm:num_requests_running"] + now["vllm:num_requests_waiting"]
            open_requests = total(now, "requests_started") - total(now, "requests")
            if busy == open_requests == 0:
                return time.monotonic() - started
            time.sleep(0.05)
        raise AssertionError(f"still busy after {seconds} s: {busy=} {open_requests=}")

    def processes(self) -> dict[int, str]:
        """Return its process tree, command lines by process id, even after the server's own end.

        All processes that it starts belong to its session, whatever their parent becomes.
        """
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                state, session = fields[0], int(fields[3])
                if session == self.process.pid and state != "Z":
                    found[int(folder.name)] = (folder / "cmdline").read_text()
        return found

    def engine(self) -> int:
        """Return the process id of vLLM's engine."""
        (pid,) = [pid for pid, name in self.processes().items() if "EngineCore" in name]
        return pid

    def wait_gone(self, seconds: float) -> None:
        """Wait until its process tree is gone; fail after `seconds`."""
        deadline = time.monotonic() + seconds
        while left := self.processes():
            assert time.monotonic() < deadline, f"still there after {seconds} s: {left}"
            time.sleep(0.05)


def total(metrics: dict[str, float], name: str) -> float:
    return metrics.get(f"stepgrpo_{name}_total", 0.0)


def check_accounts(metrics: dict[str, float]) -> None:
    """Check rules R2 and R3: every generated token and every request is counted exactly once."""
    ours = (
        total(metrics, "completion_tokens")
        - total(metrics, "injected_tokens")
        + total(metrics, "discarded_tokens")
        + total(metrics, "aborted_tokens")
        + total(metrics, "probe_tokens")
        + total(metrics, "pair_tokens")
    )
    assert ours == metrics["vllm:generation_tokens_total"]
    assert total(metrics, "requests_started") == total(metrics, "requests")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(
    command: Sequence[str], log: Path, *flags: str, more: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Run a server within the context; `more` is added to its environment."""
    server = start(command, log, *flags, more=more)
    try:
        wait_up(server)
        yield server
    finally:
        stop(server)


def start(
    command: Sequence[str], log: Path, *flags: str, more: Mapping[str, str] | None = None
) -> Server:
    """Start a server; `more` is added to its environment."""
    port = free_port()
    environment = os.environ | {
        **SHARED,
        # vLLM closes idle connections after 5 s, possibly while a client reuses one.
        "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "60",
        **(more or {}),
    }
    with log.open("wb") as out:
        process = STARTING.launch(
            [*command, *COMMON, *flags, "--host", "127.0.0.1", "--port", str(port)],
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=ROOT,
            start_new_session=True,
        )
    return Server(process, f"http://127.0.0.1:{port}", log)


def wait_up(server: Server) -> None:
    deadline = time.monotonic() + STARTUP_SECONDS
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            break
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{server.url}/health", timeout=5).status_code == 200:
                return
        time.sleep(0.5)
    raise AssertionError(f"server did not come up:\n{server.log.read_text()[-4000:]}")


def stop(server: Server) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.process.wait(20)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.process.pid, signal.SIGKILL)
    server.process.wait()
