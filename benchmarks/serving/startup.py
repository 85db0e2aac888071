"""Startup time to the first answer: this server, stock vLLM, and commands without an engine.

Both servers get the same model and flags and start in turn; a first start of each is not counted,
so files are in the page cache. The report has wall seconds, the processor seconds of all
processes, and the time of each stage, read from the first line of the log that reports it.
``--tree PATH`` measures another checkout of this repository as well, with the same packages.
"""

import contextlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from tqdm import tqdm

from benchmarks.shared.arguments import parser_of
from benchmarks.shared.processes import used
from benchmarks.shared.reports import ROOT, keep, made, mean_ratio, shown
from tests.support.servers import MODEL, Server, free_port, stop

FLAGS = (
    *("--served-model-name", "demo-base", "--dtype", "float32", "--max-model-len", "2048"),
    *("--enforce-eager", "--reasoning-parser", "qwen3"),
)
OURS = (sys.executable, "-m", "service.cli", str(MODEL))
STOCK = (sys.executable, "-m", "vllm.entrypoints.launchers.api_server.entry", "--model", str(MODEL))
STAGES = {
    "arguments read": " version ",
    "engine's process runs": "Initializing a V1 LLM engine",
    "engine ready": "init engine (profile",
    "application built": "Starting vLLM server",
}
"""Text in the first line of the log after each stage, in vLLM 0.31."""
ANSWERED = "first answer"
LIMIT = 300.0  # seconds
LIGHT = (
    ("service.cli", "savings", "--help"),
    ("service.cli", "explain", "--help"),
    ("service.cli", "guard", "--help"),
    ("training.cli", "--help"),
)


@dataclass(frozen=True, slots=True)
class Started:
    """One start."""

    seconds: Mapping[str, float]
    """Seconds since the command, by stage; `ANSWERED` is the last."""
    processor: float
    """Processor seconds of all processes of the server until then."""


def main() -> None:
    """Print the tables, and write all figures to outputs/bench/startup.json."""
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="counted starts of each server (5)")
    parser.add_argument("--tree", type=Path, help="another checkout of this repository")
    args = parser.parse_args()
    where, servers = made(), {"ours": (OURS, ROOT), "stock": (STOCK, ROOT)}
    if args.tree is not None:
        servers["tree"] = (OURS, args.tree)
    runs: dict[str, list[Started]] = {name: [] for name in servers}
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "server.log"
        for number in tqdm(range(args.rounds + 1), unit="round"):
            for name, (command, tree) in servers.items():
                start = first_answer(command, log, tree)
                if number:
                    runs[name].append(start)
    light = {" ".join(each): _processor_seconds(each) for each in LIGHT}
    print(report(runs, light))
    found = {"made": where, "rounds": args.rounds, "runs": _plain(runs), "light": light}
    print(f"\nEvery figure: {keep('startup', found)}")


def first_answer(command: Sequence[str], log: Path, tree: Path = ROOT) -> Started:
    """Start a server, send requests until it answers, and stop it."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environment = os.environ | {"PYTHONPATH": str(tree), "VLLM_CPU_KVCACHE_SPACE": "1"}
    with log.open("wb") as out:
        begun = time.monotonic()
        process = subprocess.Popen(
            [*command, *FLAGS, "--host", "127.0.0.1", "--port", str(port)],
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=tree,
            env=environment,
            start_new_session=True,
        )
    server = Server(process, url, log)
    try:
        seconds = _stages(server, begun)
        spent = used(process.pid)
        return Started(seconds, spent.api + spent.engine)
    finally:
        stop(server)


def _stages(server: Server, begun: float) -> dict[str, float]:
    seconds: dict[str, float] = {}
    while ANSWERED not in seconds:
        said, now = server.log.read_text(errors="replace"), time.monotonic() - begun
        for stage, line in STAGES.items():
            if line in said:
                seconds.setdefault(stage, now)
        if "application built" in seconds and _answers(server.url):
            seconds[ANSWERED] = time.monotonic() - begun
        if now > LIMIT or server.process.poll() is not None:
            raise RuntimeError(f"no answer after {now:.0f} s:\n{said[-2000:]}")
        time.sleep(0.02)
    return seconds


def _answers(url: str) -> bool:
    body = {
        "model": "demo-base",
        "messages": [{"role": "user", "content": "Compute 1 + 2."}],
        "max_tokens": 1,
    }
    with contextlib.suppress(httpx.TransportError):
        response = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60)
        return response.status_code == 200
    return False


def _processor_seconds(arguments: Sequence[str]) -> float:
    """Return the processor seconds of a command that needs no engine."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", *arguments]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def report(runs: Mapping[str, Sequence[Started]], light: Mapping[str, float]) -> str:
    """Return Markdown: stages, ratios of this server to each other one, and the light commands."""
    lines = [f"| seconds to | {' | '.join(runs)} |", f"|---|{'---|' * len(runs)}"]
    lines += [
        _row(stage, [[each.seconds[stage] for each in of] for of in runs.values()])
        for stage in (*STAGES, ANSWERED)
    ]
    lines.append(_row("processor seconds", [[e.processor for e in of] for of in runs.values()]))
    for peer in (name for name in runs if name != "ours"):
        pairs = list(zip(runs["ours"], runs[peer], strict=True))
        ratio = mean_ratio([a.seconds[ANSWERED] / b.seconds[ANSWERED] for a, b in pairs])
        spent = mean_ratio([a.processor / b.processor for a, b in pairs])
        found = f"to the first answer {shown(ratio)}, processor time {shown(spent)}"
        lines.append(f"\nours over {peer}: {found}")
    lines.append("\n| command | processor seconds |\n|---|---|")
    lines += [f"| `{command}` | {seconds:.2f} |" for command, seconds in light.items()]
    return "\n".join(lines)


def _row(name: str, values: Sequence[Sequence[float]]) -> str:
    cells = [f"{sum(of) / len(of):.1f} ({min(of):.1f} to {max(of):.1f})" for of in values]
    return f"| {name} | {' | '.join(cells)} |"


def _plain(runs: Mapping[str, Sequence[Started]]) -> dict[str, Any]:
    return {
        name: [{"seconds": dict(each.seconds), "processor": each.processor} for each in of]
        for name, of in runs.items()
    }


if __name__ == "__main__":
    main()
