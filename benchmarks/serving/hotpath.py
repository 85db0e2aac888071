"""Profile of the API process per token, under policy `none` and under `confidence`.

The process is sampled (`shared.sampled`) under the load of vLLM's serving benchmark. A sample
counts for the innermost frame of one of the packages below, so time in the standard library or in
compiled code counts for its caller; microseconds per token are shares of the processor time that
/proc reports.
"""

import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.serving.serving import CONFIDENCE, LIMIT, NONE
from benchmarks.shared.arguments import parser_of
from benchmarks.shared.clients import Traffic, measure, write_problems
from benchmarks.shared.reports import keep, made, number
from benchmarks.shared.sampled import STACKS
from tests.support.servers import MODEL, ROOT, Server, running
from training.demo.world import sample_problems

SERVER = ("service.cli", str(MODEL))
WAYS = {"none": NONE, "confidence": CONFIDENCE}
PARTS = {  # by part of a file's path; the first match counts
    "service": f"{ROOT}/service/",
    "stepgrpo_core": f"{ROOT}/stepgrpo_core/",
    "vLLM: engine client": "/vllm/v1/",
    "vLLM: HTTP layer": "/vllm/entrypoints/",
    "vLLM: other": "/vllm/",
    "starlette, fastapi, uvicorn": "/starlette/|/fastapi/|/uvicorn/",
    "pydantic": "/pydantic",
    "prometheus": "/prometheus",
}
OTHER = "event loop, other"
OURS = ("service", "stepgrpo_core")
FUNCTIONS = 12

Stack = Sequence[Sequence[str]]


def main() -> None:
    """Print the tables, and write all figures to outputs/bench/hotpath.json."""
    parser = parser_of(__doc__)
    parser.add_argument("--requests", type=int, default=128, help="requests per policy (128)")
    args = parser.parse_args()
    where, profiles = made(), {}
    with _sampled_server() as (server, path):
        problems = sample_problems(9, "test", args.requests)
        file = write_problems(path.with_suffix(".jsonl"), problems)
        traffic = Traffic(problems, file, LIMIT, concurrency=16)
        measure(server, traffic)  # warm-up
        _stacks(server, path)
        for name, way in tqdm(WAYS.items(), unit="policy"):
            run = measure(server, Traffic(problems, file, LIMIT, concurrency=16, extra=way.extra))
            profiles[name] = profile(_stacks(server, path), run["API process, µs per token"])
    setting = f"{args.requests} requests, at most {LIMIT} tokens, 16 at once"
    found = {"made": where, "setting": setting, "profiles": profiles}
    _report(found)
    print(f"\nEvery figure: {keep('hotpath', found)}")


@contextlib.contextmanager
def _sampled_server() -> Iterator[tuple[Server, Path]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stacks.json"
        os.environ[STACKS] = str(path)
        command = (sys.executable, "-m", "benchmarks.shared.sampled", *SERVER)
        with running(command, Path(folder) / "server.log") as server:
            yield server, path


def _stacks(server: Server, path: Path) -> list[tuple[Stack, int]]:
    """Return the stacks that the server has recorded since the last call."""
    path.unlink(missing_ok=True)
    os.kill(server.process.pid, signal.SIGUSR2)
    server.metrics()  # signals are handled in the next iteration of the event loop
    while not path.exists():
        time.sleep(0.05)
    rows = json.loads(path.read_text(encoding="utf-8"))
    return [(row["stack"], row["count"]) for row in rows]


def profile(stacks: Sequence[tuple[Stack, int]], micros: float) -> dict[str, Any]:
    """Divide `micros` microseconds per token among the parts, and among our functions."""
    parts: Counter[str] = Counter()
    functions: Counter[str] = Counter()
    for stack, count in stacks:
        part, function = owner(stack)
        parts[part] += count
        if part in OURS:
            functions[function] += count
    samples = max(parts.total(), 1)
    return {
        "samples": parts.total(),
        "microseconds": micros,
        "parts": {name: micros * count / samples for name, count in parts.most_common()},
        "functions": {
            name: micros * count / samples for name, count in functions.most_common(FUNCTIONS)
        },
    }


def owner(stack: Stack) -> tuple[str, str]:
    """Return the part that a sample counts for, and the function there.

    The command line is the outermost frame; its samples are those of the compiled event loop.
    """
    for file, function in reversed(stack):
        if file.endswith("/service/cli.py"):
            break
        for part, marks in PARTS.items():
            if any(mark in file for mark in marks.split("|")):
                return part, f"{Path(file).stem}: {function.replace('.<locals>', '')}"
    return OTHER, ""


def _report(found: Mapping[str, Any]) -> None:
    print(f"\n{found['setting']}, commit {found['made']['commit']}")
    for name, each in found["profiles"].items():
        print(f"\n| policy `{name}`, {each['samples']} samples | µs per token |\n|---|---|")
        rows = {"all": each["microseconds"], **each["parts"], **each["functions"]}
        for title, micros in rows.items():
            print(f"| {title} | {number(micros)} |")


if __name__ == "__main__":
    main()
