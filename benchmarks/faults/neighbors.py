"""Effects of some clients on the others: floods of markers, stalled readers, scrapers.

A few innocent clients request streams one after the other, alternately beside a fault and beside
the same load without it, so that the ratio is the cost of the fault itself:

- flood (F14): 50 clients whose model writes only markers, each of which starts a probe; the peer
  is the same 50 under policy `none`. The server has the limits against hostile prompts. Promise:
  the innocent keep 85 % of their tokens per second.
- stalled (F3): 16 long streams that nobody reads; the peer is the same streams, read. Promise: the
  99th percentile of the time between two events of the innocent grows by at most 10 %.
- scrapers (F22): two clients that read the metrics ten times a second; the peer is none. Promise:
  50 ms at the 99th percentile.

Percentiles exclude intervals that span a pause of the whole machine (`benchmarks.shared.pauses`).

Refusals under twice the load (F4) are in `benchmarks.faults.churn`.
"""

import asyncio
import contextlib
import socket
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from tqdm import tqdm
from transformers import AutoTokenizer

from benchmarks.faults.churn import CLOSE, END, visit
from benchmarks.shared.arguments import parser_of
from benchmarks.shared.pauses import Pauses, Timed, percentile, watched
from benchmarks.shared.raw_http import message, request
from benchmarks.shared.reports import Pair, compare, keep, made
from tests.support.servers import CALIBRATED, MODEL, OURS, Server, check_accounts, running

INNOCENT, FLOODS, STALLED, SCRAPERS = 8, 50, 16, 2
SCRAPE_SECONDS = 0.1
WARM_SECONDS = 2.0
IDLE_SECONDS = 120.0
CHAT = "/v1/chat/completions"
NEVER_ENDS = {"logit_bias": {END: -100, CLOSE: -100}, "temperature": 1.0, "stream": True}
UNEXITED = {"exit_policy": "none"}
PROBED = {"exit_policy": "confidence", "exit_threshold": 1.0}  # no confidence exceeds it

LIMITS = ("--exit-limit-probes", "16", "--exit-limit-interval", "64", "--exit-limit-share", "0.1")

Fault = Callable[[str, asyncio.Event], Awaitable[list[Timed]]]
"""A load on this URL until the event is set; returns start and duration of requests that count."""


@dataclass(slots=True)
class Served:
    """The results of the innocent clients in one run."""

    tokens: int = 0
    gaps: list[Timed] = field(default_factory=list)
    """Start and seconds between two events of a stream."""

    def figures(
        self, seconds: float, asked: Sequence[Timed], pauses: Pauses
    ) -> dict[str, float | list[float]]:
        """Return the figures for the table, and further ones for inspection."""
        gaps = pauses.outside(self.gaps)
        return {
            "tokens per second": self.tokens / seconds,
            "gap, p50 ms": 1000 * statistics.median(gaps),
            "gap, p99 ms": 1000 * percentile(gaps, 0.99),
            "gap with pauses, p99 ms": 1000 * percentile([each for _, each in self.gaps], 0.99),
            "asked, ms": [1000 * each for each in pauses.outside(asked)],
            "asked with pauses, ms": [1000 * each for _, each in asked],
            "pauses, ms": [1000 * long for _, long in pauses.spans],
        }


def _body(number: int, **more: Any) -> dict[str, Any]:
    """Return a chat of the demo model: the same problem for the same number."""
    return {"model": "demo-base", "messages": visit(number).body["messages"], **more}


async def _innocent(url: str, until: float, served: Served, number: int) -> None:
    """Run one client that repeats requests."""
    while time.monotonic() < until:
        last: float | None = None

        def read(event: dict[str, Any]) -> bool:
            nonlocal last
            now = time.monotonic()
            if last is not None:
                served.gaps.append((last, now - last))
            last = now
            served.tokens += sum(len(each.get("token_ids") or ()) for each in event["choices"])
            return now >= until

        body = _body(number, **NEVER_ENDS, vllm_xargs=UNEXITED, max_tokens=200)
        await request(url + CHAT, body | {"return_token_ids": True}, leave=read)
        number += INNOCENT


def _run(server: Server, fault: Fault, seconds: float) -> dict[str, Any]:
    """Run the innocent clients beside a fault."""
    served = Served()
    with watched() as pauses:
        took, asked = asyncio.run(_beside(server, fault, seconds, served))
    return served.figures(took, asked, pauses)


async def _beside(
    server: Server, fault: Fault, seconds: float, served: Served
) -> tuple[float, list[Timed]]:
    """Return the duration in seconds, and the requests that the fault timed."""
    over = asyncio.Event()
    task = asyncio.ensure_future(fault(server.url, over))
    await asyncio.sleep(WARM_SECONDS)
    started = time.monotonic()
    until = started + seconds
    await asyncio.gather(*(_innocent(server.url, until, served, n) for n in range(INNOCENT)))
    took = time.monotonic() - started
    over.set()
    asked = await task
    await asyncio.to_thread(server.wait_idle, IDLE_SECONDS)
    return took, asked


async def _nothing(_: str, over: asyncio.Event) -> list[Timed]:
    await over.wait()
    return []


def _flood(xargs: dict[str, Any]) -> Fault:
    """Return a fault of clients whose model writes markers."""
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    words = tokenizer.convert_tokens_to_ids(["<think>", "Wait"])
    markers = {"allowed_token_ids": [*words, *tokenizer.encode(",\n")], "vllm_xargs": xargs}

    async def client(url: str, over: asyncio.Event, number: int) -> None:
        while not over.is_set():
            body = _body(number, **NEVER_ENDS, **markers, max_tokens=300)
            reply = await request(url + CHAT, body, leave=lambda _: over.is_set())
            assert reply.status == 200, reply.last

    async def flood(url: str, over: asyncio.Event) -> list[Timed]:
        await asyncio.gather(*(client(url, over, number) for number in range(FLOODS)))
        return []

    return flood


async def _reading(url: str, over: asyncio.Event) -> list[Timed]:
    """Read long streams."""
    streams = (
        request(url + CHAT, _long(number), leave=lambda _: over.is_set())
        for number in range(STALLED)
    )
    await asyncio.gather(*streams)
    await over.wait()
    return []


async def _stalling(url: str, over: asyncio.Event) -> list[Timed]:
    """Open long streams without reading them."""
    loop = asyncio.get_running_loop()
    address = (urlsplit(url).hostname, urlsplit(url).port)
    with contextlib.ExitStack() as stack:
        for number in range(STALLED):
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.setblocking(False)
            await loop.sock_connect(connection, address)
            await loop.sock_sendall(connection, message(url + CHAT, _long(number)))
        await over.wait()
    return []


def _long(number: int) -> dict[str, Any]:
    return _body(number, **NEVER_ENDS, max_tokens=1900, vllm_xargs=UNEXITED)


async def _scrapers(url: str, over: asyncio.Event) -> list[Timed]:
    """Read the metrics; return the start and duration of each request."""
    asked: list[Timed] = []

    async def scraper(client: httpx.AsyncClient) -> None:
        while not over.is_set():
            started = time.monotonic()
            (await client.get("/metrics")).raise_for_status()
            asked.append((started, time.monotonic() - started))
            await asyncio.sleep(max(started + SCRAPE_SECONDS - time.monotonic(), 0))

    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        await asyncio.gather(*(scraper(client) for _ in range(SCRAPERS)))
    return asked


RUNS: Mapping[str, Mapping[str, Fault]] = {
    "flood": {"without": _flood(UNEXITED), "flood": _flood(PROBED)},
    "stalled": {"read": _reading, "stalled": _stalling},
    "scrapers": {"without": _nothing, "scrapers": _scrapers},
}
"""The peer and the fault of each part."""
METRICS = {
    "tokens per second": "tokens per second of the innocent",
    "gap, p50 ms": "between two events, p50 ms",
    "gap, p99 ms": "between two events, p99 ms",
}


def main() -> None:
    """Measure, print the tables, and write all figures to outputs/bench/neighbors.json."""
    parser = parser_of(__doc__)
    parser.add_argument("--parts", nargs="*", choices=RUNS, default=list(RUNS), help="(all)")
    parser.add_argument("--rounds", type=int, default=5, help="of peer and fault (%(default)s)")
    parser.add_argument("--seconds", type=float, default=10, help="of a run (%(default)s)")
    args = parser.parse_args()
    found: dict[str, Any] = {"made": made(), **vars(args)}
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "server.log"
        with running(OURS, log, *CALIBRATED, *LIMITS) as server:
            for part in args.parts:
                found[part] = _rounds(server, part, args.rounds, args.seconds)
                peer, fault = RUNS[part]
                print(compare(found[part], METRICS, title=part, ours=fault, peer=peer), flush=True)
            check_accounts(server.metrics())
    for part in args.parts:
        _report_tails(part, found[part])
    print(f"kept in {keep('neighbors', found)}")


def _report_tails(part: str, rounds: Sequence[Mapping[str, Any]]) -> None:
    """Print the requests that the fault timed, over all rounds, and the pauses of the machine."""
    runs = [run for each in rounds for run in each.values()]
    pauses = [each for run in runs for each in run["pauses, ms"]]
    print(f"{part}: {len(pauses)} pauses of the machine, {sum(pauses):.0f} ms in all")
    clean, raw = (
        [each for run in runs for each in run[name]]
        for name in ("asked, ms", "asked with pauses, ms")
    )
    if raw:
        print(
            f"{len(raw)} scrapes, p99 {percentile(clean, 0.99):.0f} ms without the "
            f"{len(raw) - len(clean)} that span a pause, {percentile(raw, 0.99):.0f} ms with them"
        )


def _rounds(server: Server, part: str, rounds: int, seconds: float) -> list[Pair]:
    """Run peer and fault in alternating order."""
    pairs: list[Pair] = []
    for number in tqdm(range(rounds), desc=part, unit="round"):
        order = list(RUNS[part].items())[:: -1 if number % 2 else 1]
        pairs.append({name: _run(server, fault, seconds) for name, fault in order})
    return pairs


if __name__ == "__main__":
    main()
