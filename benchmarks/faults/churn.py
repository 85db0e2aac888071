"""Leak tests with thousands of requests whose clients disconnect at any point, stay, or overload.

`churn` is fault F1: a tenth of the clients disconnect, before the headers, in the reasoning, in a
probe, in the answer or after the last token; afterwards the accounts are exact and the server
holds the same resources as before. `stays` is F2, one client that keeps its connection. `crowd`
is F4 and F5, twice the load that the server admits.
"""

import argparse
import asyncio
import dataclasses
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from tqdm import tqdm

from benchmarks.shared.pauses import Timed, percentile, watched
from benchmarks.shared.raw_http import Leave, Reply, request
from benchmarks.shared.reports import commit, keep, machine
from tests.support.servers import CALIBRATED, OURS, Server, check_accounts, running, total
from training.demo.world import sample_problems

__all__ = ["Churned", "Crowded", "Held", "Visit", "churn", "crowd", "held", "stays", "visit"]

IDLE_SECONDS = 10.0
CUTS = ("headers", "reasoning", "probe", "answer", "end")
END, CLOSE = "387", "389"  # <|im_end|> and </think> of demo-base
PROBLEMS = [each.prompt for each in sample_problems(11, "test", 256)]
PROBING = {
    "exit_policy": "confidence+repetition",
    "exit_threshold": 1.0,
    "exit_min_interval": 1,
    "exit_max_probes": 32,
}


@dataclass(frozen=True, slots=True)
class Visit:
    """One scripted request."""

    body: dict[str, Any]
    cut: str | None
    leave: Leave | None = None
    stay: float | None = None


def visit(index: int) -> Visit:
    """Return the request of this number: half are streams, every tenth is cut, in five ways."""
    chance = random.Random(index)
    is_cut = index % 10 == (9, 4)[index // 50 % 2]  # cuts both streams and others
    cut = CUTS[index // 10 % len(CUTS)] if is_cut else None
    policy = ("none", "confidence")[index // 2 % 2]
    body: dict[str, Any] = {
        "model": "demo-base",
        "messages": [{"role": "user", "content": PROBLEMS[index % len(PROBLEMS)]}],
        "max_tokens": 400,
        "seed": index,
        "n": 1 if index % 7 else 2,
        "vllm_xargs": {"exit_policy": policy},
    }
    if index % 2 or cut in ("reasoning", "answer", "end"):
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    if cut is None:
        return Visit(body, None)
    if policy == "confidence":
        body["vllm_xargs"] = PROBING  # separate, so that the accounts of the others are exact
    if cut == "headers":
        return Visit(body, cut, stay=chance.uniform(0, 0.02))
    if cut == "probe":
        body |= {"logit_bias": {END: -100, CLOSE: -100}, "vllm_xargs": PROBING}
        return Visit(body, cut, stay=chance.uniform(0.05, 1))
    if cut == "answer":
        body["logit_bias"] = {END: -100}
    return Visit(body, cut, leave=_after(cut, chance.randrange(1, 30)))


def _after(cut: str, count: int) -> Leave:
    """Return a `Leave` after `count` deltas of reasoning or answer, or at a finish reason."""
    seen = Counter[str]()

    def leave(event: dict[str, Any]) -> bool:
        for choice in event["choices"]:
            delta = choice["delta"]
            seen["reasoning"] += bool(delta.get("reasoning"))
            seen["answer"] += bool(delta.get("content"))
            seen["end"] += count if choice["finish_reason"] else 0
        return seen[cut] >= count

    return leave


@dataclass(frozen=True, slots=True)
class Held:
    """The resources that an idle server holds."""

    tasks: int
    """Asyncio tasks in the server's process."""
    descriptors: int
    """Open files and sockets of that process."""
    kilobytes: int
    """Resident memory of the whole process tree."""


def held(server: Server) -> Held:
    """Return the resources once idle; waits briefly for connections that were just closed."""
    server.wait_idle(IDLE_SECONDS)
    found = _held(server)
    for _ in range(20):
        time.sleep(0.1)
        before, found = found, _held(server)
        if (before.tasks, before.descriptors) == (found.tasks, found.descriptors):
            break
    return found


def _held(server: Server) -> Held:
    resident = 0
    for pid in server.processes():
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
        resident += int(status.partition("VmRSS:")[2].split()[0])
    tasks = int(server.metrics()["stepgrpo_tasks"])
    return Held(tasks, len(os.listdir(f"/proc/{server.process.pid}/fd")), resident)  # noqa: PTH208


@dataclass(slots=True)
class Churned:
    """The result of a run of `churn`."""

    requests: int = 0
    sequences: int = 0
    whole: int = 0
    cut: Counter[str] = field(default_factory=Counter)
    usage: Counter[str] = field(default_factory=Counter)
    """Completion tokens of whole responses, by policy."""
    statuses: Counter[int] = field(default_factory=Counter)
    idle_seconds: float = 0.0
    """Seconds from the last response until the server was idle."""

    def as_dict(self) -> dict[str, Any]:
        """Return the figures for a report; `dataclasses.asdict` would copy counters wrongly."""
        return {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}

    def add(self, visited: Visit, reply: Reply) -> None:
        """Count one request."""
        self.requests += 1
        self.sequences += visited.body["n"]
        self.statuses[reply.status] += 1
        assert "error" not in reply.last, reply.last
        if visited.cut is not None:
            self.cut[visited.cut] += 1
        elif reply.whole and reply.status == 200:
            self.whole += 1
            policy = visited.body["vllm_xargs"]["exit_policy"]
            self.usage[policy] += reply.last["usage"]["completion_tokens"]


def churn(server: Server, indices: range, *, at_once: int = 24) -> Churned:
    """Make these scripted visits, then check rules R1 to R3 (AssertionError)."""
    result = Churned()
    before = server.metrics()
    by_policy = _delivered(server)
    asyncio.run(_visits(server, indices, at_once, result))
    result.idle_seconds = server.wait_idle(IDLE_SECONDS)
    now = server.metrics()
    check_accounts(now)
    # R1: usage counts what was delivered. Requests that are cut have a separate policy, except for
    # half of them, which use `none`.
    delivered = {key: value - by_policy[key] for key, value in _delivered(server).items()}
    assert result.usage["confidence"] == delivered["confidence"]
    assert result.usage["none"] <= delivered["none"]
    # R3: a client that left before the headers may have left before the engine saw the request.
    started = total(now, "requests_started") - total(before, "requests_started")
    assert result.sequences - 2 * result.cut["headers"] <= started <= result.sequences
    uncut = result.requests - result.cut.total()
    assert result.whole == uncut, f"{uncut - result.whole} that stayed got no whole response"
    return result


async def _visits(server: Server, indices: range, at_once: int, result: Churned) -> None:
    url = f"{server.url}/v1/chat/completions"
    numbers: Iterator[int] = iter(tqdm(indices, unit="request", mininterval=5, miniters=100))

    async def visitor() -> None:
        for number in numbers:
            one = visit(number)
            result.add(one, await request(url, one.body, leave=one.leave, stay=one.stay))

    await asyncio.gather(*(visitor() for _ in range(at_once)))


def _delivered(server: Server) -> Counter[str]:
    return server.by("stepgrpo_completion_tokens_total", "policy")


def stays(server: Server, requests: int) -> int:
    """Send short requests from one client on one connection; return how many were cancelled."""
    before = _completed(server)
    limits = httpx.Limits(max_connections=1)
    addresses: set[Any] = set()
    with httpx.Client(base_url=server.url, limits=limits, timeout=60) as client:
        for index in tqdm(range(requests), unit="request", mininterval=5):
            body = visit(index).body | {"max_tokens": 8, "stream": bool(index % 2), "n": 1}
            body.pop("stream_options", None)  # allowed for streams only
            with client.stream("POST", "/v1/chat/completions", json=body) as response:
                response.read()
                network = response.extensions["network_stream"]
                addresses.add(network.get_extra_info("client_addr"))
            assert response.status_code == 200, response.text
            assert "finish_reason" in response.text
    assert len(addresses) == 1
    server.wait_idle(IDLE_SECONDS)
    check_accounts(server.metrics())
    return requests - (_completed(server) - before)


def _completed(server: Server) -> int:
    return server.by("stepgrpo_requests_total", "outcome")["completed"]


@dataclass(slots=True)
class Crowded:
    """The result of a run of `crowd`."""

    statuses: Counter[int] = field(default_factory=Counter)
    broken: int = 0
    """Requests that were admitted, but got no whole response."""
    without_retry: int = 0
    """Refusals without a Retry-After header."""
    refusals: list[Timed] = field(default_factory=list)
    """Start and duration of each refused request."""
    recovery: float = 0.0
    """Seconds from the first request afterwards to its headers."""


def crowd(server: Server, clients: int, more: Callable[[Crowded], bool]) -> Crowded:
    """Run `clients` that repeat requests as long as `more`; a refused client waits as told."""
    return asyncio.run(_crowd(server, clients, more))


async def _crowd(server: Server, clients: int, more: Callable[[Crowded], bool]) -> Crowded:
    url, result = f"{server.url}/v1/chat/completions", Crowded()

    async def client(number: int) -> None:
        while more(result):
            number += clients
            body = visit(10 * number).body | {"n": 1, "stream": bool(number // 2 % 2)}
            began = time.monotonic()
            reply = await request(url, body)
            result.statuses[reply.status] += 1
            if reply.status == 200:
                result.broken += not reply.whole
                continue
            result.refusals.append((began, reply.seconds))
            result.without_retry += "retry-after" not in reply.headers
            await asyncio.sleep(int(reply.headers.get("retry-after-ms", 1000)) / 1000)

    await asyncio.gather(*(client(number) for number in range(clients)))
    result.recovery = (await request(url, visit(0).body)).seconds
    return result


@contextmanager
def _timed(name: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)


def main() -> None:
    """Run all parts, print the results, and write the figures to outputs/bench/churn.json."""
    args = _arguments()
    figures: dict[str, Any] = {"machine": machine(), "commit": commit(), **vars(args)}
    with tempfile.TemporaryDirectory() as folder:
        with running(OURS, Path(folder) / "churn.log", *CALIBRATED) as server:
            figures["churn"] = _churn_all(server, args.requests, args.warm)
            with _timed("F2"):
                figures["false_cancels"] = stays(server, args.short)
        limit = ("--max-num-queued-reqs", str(args.limit))
        with (
            running(OURS, Path(folder) / "crowd.log", *CALIBRATED, *limit) as server,
            _timed("F4"),
            watched() as pauses,
        ):
            until = time.monotonic() + args.seconds
            crowded = crowd(
                server,
                2 * args.limit,
                lambda so_far: time.monotonic() < until or so_far.statuses[200] < args.admitted,
            )
    refusals = pauses.outside(crowded.refusals)
    figures["crowd"] = {
        "statuses": crowded.statuses,
        "broken": crowded.broken,
        "without_retry": crowded.without_retry,
        "refusal_seconds_median": percentile(refusals, 0.5),
        "refusal_seconds_p99": percentile(refusals, 0.99),
        "refusal_seconds_p99_with_pauses": percentile([each for _, each in crowded.refusals], 0.99),
        "refusals_in_pauses": len(crowded.refusals) - len(refusals),
        "pauses": pauses.spans,
        "recovery_seconds": crowded.recovery,
    }
    print({name: figures[name] for name in ("false_cancels", "crowd", "machine", "commit")})
    print(f"kept in {keep('churn', figures)}")


def _churn_all(server: Server, requests: int, warm: int) -> list[dict[str, Any]]:
    """Run blocks of `warm` requests; return each with the resources held after it."""
    blocks: list[dict[str, Any]] = []
    churn(server, range(200))  # creates everything that is created once
    blocks.append({"after": 0, "held": dataclasses.asdict(held(server))})
    print(blocks[-1], flush=True)
    for first in range(0, requests, warm):
        with _timed("F1"):
            result = churn(server, range(first, min(first + warm, requests)))
        blocks.append(
            {
                "after": first + result.requests,
                "held": dataclasses.asdict(held(server)),
                **result.as_dict(),
            }
        )
        print(blocks[-1], flush=True)
    grown = blocks[-1]["held"]["kilobytes"] / blocks[1]["held"]["kilobytes"] - 1
    print(f"resident memory from {warm} to {requests} requests: {grown:+.1%}", flush=True)
    return blocks


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000, help="F1: scripted requests")
    parser.add_argument("--warm", type=int, default=2_000, help="F1: requests in a block")
    parser.add_argument("--short", type=int, default=1_000, help="F2: requests on one connection")
    parser.add_argument("--limit", type=int, default=50, help="F4: sequences the server admits")
    parser.add_argument("--seconds", type=float, default=30.0, help="F4: of twice that load")
    parser.add_argument("--admitted", type=int, default=1_000, help="F5: at least so many admitted")
    return parser.parse_args()


if __name__ == "__main__":
    main()
