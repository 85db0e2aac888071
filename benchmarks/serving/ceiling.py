"""Tokens per second through HTTP when the engine costs nothing, against stock vLLM.

Both servers run with a scripted engine core (`scripted_core`), so their API process is the only
limit. Runs alternate; a figure is a ratio to stock in the same round. `--before` names another
checkout of this repository, whose server is measured in the same rounds. The client opens all
streams at once, reads raw bytes, and takes the tokens from the usage that ends each stream.
"""

import asyncio
import contextlib
import json
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.serving.scripted_core import SCRIPT
from benchmarks.serving.wrapper import make_script
from benchmarks.shared.arguments import parser_of
from benchmarks.shared.processes import used
from benchmarks.shared.raw_http import message
from benchmarks.shared.reports import compare, keep, made
from tests.support.servers import MODEL, Server, start, stop, wait_up

CORE = Path(__file__).with_name("scripted_core.py")
SERVERS = {
    "stock": ("stock", "--model", str(MODEL)),
    "ours": ("ours", str(MODEL), "--exit-probe-load", "1"),
}
FLAGS = ("--max-num-seqs", "2048", "--no-enable-chunked-prefill", "--block-size", "32")
TOTAL = {64: 24_576, 256: 32_768, 1024: 65_536}
"""Tokens of a run, by the number of streams."""
_COMPLETION = re.compile(rb'"completion_tokens": ?(\d+)')
METRICS = {name: name for name in ("tokens per second", "API process, µs per token", "first, ms")}


@dataclass(frozen=True, slots=True)
class Way:
    """A server and the exit parameters of its requests."""

    server: str
    xargs: Mapping[str, Any] = field(default_factory=dict)


CONFIDENCE = {"exit_policy": "confidence"}
WAYS = {
    "stock": Way("stock"),
    "none": Way("ours"),
    "confidence, no probes": Way("ours", CONFIDENCE | {"exit_max_probes": 0}),
    "confidence, probes decline": Way("ours", CONFIDENCE),
}


def main() -> None:
    """Measure, print the tables, and write all figures to outputs/bench/ceiling.json."""
    parser = parser_of(__doc__)
    add = parser.add_argument
    add("--rounds", type=int, default=5, help="rounds (5)")
    add("--streams", type=int, nargs="+", default=list(TOTAL), help="at once (64 256 1024)")
    add("--before", type=Path, help="another checkout to measure in the same rounds")
    add("--ways", nargs="+", help="which ways, stock among them (all)")
    args = parser.parse_args()
    ways = dict(WAYS)
    if args.before:
        ways |= {f"before: {name}": Way("before", way.xargs) for name, way in WAYS.items()}
        del ways["before: stock"]
    ways = {name: way for name, way in ways.items() if not args.ways or name in args.ways}
    found: dict[str, Any] = {"made": made(), "streams": {}}
    with tempfile.TemporaryDirectory() as folder, _servers(Path(folder), args.before) as servers:
        for way in ways.values():
            measure(servers[way.server], way, 4, 64)  # warm-up
        for streams in args.streams:
            tokens = TOTAL.get(streams, 16_384) // streams
            rounds: list[dict[str, dict[str, float]]] = []
            found["streams"][streams] = {"tokens": tokens, "rounds": rounds}
            for index in tqdm(range(args.rounds), unit="round", desc=f"{streams} streams"):
                order = list(ways)[:: -1 if index % 2 else 1]
                runs = {
                    n: measure(servers[ways[n].server], ways[n], streams, tokens) for n in order
                }
                rounds.append({name: runs[name] for name in ways})
            _report(streams, tokens, rounds)
    print(f"\nEvery figure: {keep('ceiling', found)}")


@contextlib.contextmanager
def _servers(folder: Path, before: Path | None) -> Iterator[dict[str, Server]]:
    script, path = make_script(1200), folder / "script.json"
    path.write_text(json.dumps({"main": script.ids, "probe": script.trial}), encoding="utf-8")
    names = {"stock": None, "ours": None} | ({"before": before} if before else {})
    with contextlib.ExitStack() as stack:
        found = {}
        for name, root in names.items():
            kind = "stock" if name == "stock" else "ours"
            command = (sys.executable, str(CORE), *SERVERS[kind])
            more = {SCRIPT: str(path)} | ({"PYTHONPATH": str(root)} if root else {})
            found[name] = start(command, folder / f"{name}.log", *FLAGS, more=more)
            stack.callback(stop, found[name])
        for server in found.values():
            wait_up(server)
        yield found


def measure(server: Server, way: Way, streams: int, tokens: int) -> dict[str, float]:
    """Run so many streams at once, each of so many tokens; return the figures."""
    before, started = used(server.process.pid), time.perf_counter()
    ends, firsts = asyncio.run(_load(server.url, way, streams, tokens))
    seconds, spent = time.perf_counter() - started, used(server.process.pid).since(before)
    assert ends == [tokens] * streams, ends
    count = streams * tokens
    return {
        "tokens per second": count / seconds,
        "API process, µs per token": 1e6 * spent.api / count,
        "first, ms": 1000 * sorted(firsts)[len(firsts) // 2],
    }


async def _load(url: str, way: Way, streams: int, tokens: int) -> tuple[list[int], list[float]]:
    body = {
        "model": "demo-base",
        "messages": [{"role": "user", "content": "1+1"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": tokens,
        **({"vllm_xargs": dict(way.xargs)} if way.xargs else {}),
    }
    data = message(f"{url}/v1/chat/completions", body)
    host, port = url.removeprefix("http://").split(":")
    found = await asyncio.gather(*(_read(host, int(port), data) for _ in range(streams)))
    return [tokens for tokens, _ in found], [first for _, first in found]


async def _read(host: str, port: int, data: bytes) -> tuple[int, float]:
    """Return the completion tokens of one stream, and the seconds until its first event."""
    started, first, end = time.perf_counter(), 0.0, b""
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(data)
    while part := await reader.read(65_536):
        first = first or time.perf_counter() - started
        end = (end + part)[-4096:]  # usage is in the last event but one
    writer.close()
    counts = _COMPLETION.findall(end)
    assert counts, end.decode(errors="replace")
    return int(counts[-1]), first


def _report(streams: int, tokens: int, rounds: list[dict[str, dict[str, float]]]) -> None:
    title = f"{streams} streams of {tokens} tokens"
    for way in rounds[0]:
        if way != "stock":
            print(compare(rounds, METRICS, title=f"{title}, {way}", ours=way, peer="stock"))


if __name__ == "__main__":
    main()
