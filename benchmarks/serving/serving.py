"""Our server against stock vLLM on the demo model, over HTTP, under closed and open loop load.

Servers are up at once and idle in turn, so that all see the same machine; runs alternate, and a
figure is the mean over rounds of the ratio to stock, with its 95 % interval. The client is vLLM's
serving benchmark. Every engine computes in the process of its scheduler. vLLM's default on CPUs is
a separate worker, for which the scheduler busy-waits; on two cores that the API process and the
client share, the benchmark would then measure the allocation of cores.

Sections: `memory` of open streams; `none`, the same fixed lengths from both; `confidence`, answers
of natural length, graded; `concurrency`, from 1 to 256.
"""

import contextlib
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.serving.open_streams import hold_open
from benchmarks.shared.arguments import parser_of
from benchmarks.shared.clients import Run, Traffic, measure, write_problems
from benchmarks.shared.reports import compare, keep, made
from tests.support.servers import OURS, ROOT, STOCK, Server, start, stop, wait_up
from training.demo.world import sample_problems
from training.run.adapters import as_model

ADAPTER = ROOT / "models" / "demo-step-grpo"
FLAGS = ("--max-num-seqs", "1024")  # room for all open streams to run
# Our server sets these itself on CPUs.
STOCK_FLAGS = (*FLAGS, "--no-enable-chunked-prefill", "--block-size", "32")
LIMIT = 900  # tokens of an answer
SHARE = 0.6  # rate of the open loop, as a share of stock's requests per second in a closed loop


@dataclass(frozen=True, slots=True)
class Way:
    """A server and the parameters of its requests."""

    server: str
    xargs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def extra(self) -> dict[str, Any]:
        """Return further fields of a request."""
        return {"vllm_xargs": dict(self.xargs)} if self.xargs else {}


STOCK_WAY, NONE = Way("stock"), Way("ours")
CONFIDENCE = Way("ours", {"exit_policy": "confidence"})
WAYS = {
    "memory": {"stock": STOCK_WAY, "none": NONE, "confidence": CONFIDENCE},
    "none": {"stock": STOCK_WAY, "none": NONE},
    "confidence": {
        "stock": STOCK_WAY,
        "confidence": CONFIDENCE,
        "demo-step-grpo, none": Way("trained"),
    },
    "concurrency": {"stock": STOCK_WAY, "none": NONE, "confidence": CONFIDENCE},
}


@dataclass(frozen=True, slots=True)
class Size:
    """The amount of measurement."""

    streams: int = 1000
    none_rounds: tuple[int, int] = (48, 6)
    """Numbers of rounds in a closed loop and in an open loop."""
    confidence_rounds: tuple[int, int] = (12, 6)
    requests: int = 96
    concurrency: int = 16
    levels: tuple[int, ...] = (1, 4, 16, 64, 256)
    level_rounds: int = 1


QUICK = Size(50, (1, 1), (1, 1), requests=16, levels=(1, 16))


@dataclass(slots=True)
class Bench:
    """The servers and the results so far."""

    servers: Mapping[str, Server]
    folder: Path
    size: Size
    found: dict[str, Any]
    bar: "tqdm[Any]"
    name: str = "serving"

    def rounds(
        self, name: str, ways: Mapping[str, Way], traffics: Sequence[Traffic], setting: str
    ) -> list[dict[str, Run]]:
        """Run each way for each of `traffics`, in alternating order, and write each round."""
        rounds: list[dict[str, Run]] = []
        self.found[name] = {"setting": setting, "rounds": rounds}
        for index, traffic in enumerate(traffics):
            runs: dict[str, Run] = {}
            rounds.append(runs)
            for way in list(ways)[:: 1 if index % 2 else -1]:
                self.bar.set_postfix_str(f"{name}, {way}")
                asked = replace(traffic, extra=ways[way].extra)
                runs[way] = measure(self.servers[ways[way].server], asked)
                self.bar.update()
            self.keep()
        return rounds

    def traffics(
        self, count: int, requests: int, *, first: int = 0, **options: Any
    ) -> list[Traffic]:
        """Return traffic of `count` rounds, which differ in problems and arrivals alone; `first` is
        the number of the first.
        """
        problems = sample_problems(5, "test", (first + count) * requests)
        traffics = []
        for index in range(first, first + count):
            part = problems[index * requests : (index + 1) * requests]
            path = write_problems(self.folder / f"{requests}-{index}.jsonl", part)
            traffics.append(Traffic(part, path, seed=index, **options))
        return traffics

    def keep(self) -> Path:
        """Write the results so far to outputs/bench."""
        return keep(self.name, self.found)


def main() -> None:
    """Measure, print the tables, and write all figures to outputs/bench/serving.json."""
    parser = parser_of(__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="few requests: whether it runs, not how fast"
    )
    parser.add_argument(
        "--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="which (all)"
    )
    args = parser.parse_args()
    size = QUICK if args.quick else Size()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = stack.enter_context(_servers(folder, args.sections))
        bar = stack.enter_context(tqdm(total=_runs(size, args.sections), unit="run", smoothing=0))
        bench = Bench(servers, folder, size, {"made": made()}, bar)
        warm_up(bench)
        for name in args.sections:
            SECTIONS[name](bench)
    _report(bench.found)


@contextlib.contextmanager
def _servers(folder: Path, sections: Sequence[str]) -> Iterator[dict[str, Server]]:
    """Run the servers that the sections need, by name."""
    names = {way.server for section in sections for way in WAYS[section].values()}
    with contextlib.ExitStack() as stack:
        found = {}
        for name in sorted(names):
            command, flags = (STOCK, STOCK_FLAGS) if name == "stock" else (OURS, FLAGS)
            if name == "trained":
                command = (*OURS[:-1], stack.enter_context(as_model(str(ADAPTER))))
            found[name] = start(command, folder / f"{name}.log", *flags)
            stack.callback(stop, found[name])
        for server in found.values():  # they start concurrently
            wait_up(server)
        yield found


def warm_up(bench: Bench) -> None:
    """Send requests to every server before measurement."""
    (traffic,) = bench.traffics(1, 32, tokens=64, concurrency=16)
    for server in bench.servers.values():
        measure(server, traffic)


def _memory(bench: Bench) -> None:
    """Measure the resident memory of the API process with streams open, and before the first."""
    size = bench.size
    problems = sample_problems(6, "test", size.streams, "hard")
    found: dict[str, Any] = {}
    bench.found["memory"] = {
        "setting": f"{size.streams} streams of hard problems open, 40 tokens of each generated",
        "ways": found,
    }
    for name, way in WAYS["memory"].items():
        bench.bar.set_postfix_str(f"memory, {name}")
        found[name] = hold_open(bench.servers[way.server], problems, way.extra, tokens_each=40)
        bench.bar.update()
    bench.keep()


def _none(bench: Bench) -> None:
    size = bench.size
    options = {"tokens": 128, "fixed": True}
    at_once = {"concurrency": size.concurrency, **options}
    what = f"{size.requests} requests of 128 tokens each"
    closed = bench.rounds(
        "none, closed loop",
        WAYS["none"],
        bench.traffics(size.none_rounds[0], size.requests, **at_once),
        f"{what}, {size.concurrency} at once",
    )
    rate = _open_rate(closed)
    bench.rounds(
        "none, open loop",
        WAYS["none"],
        bench.traffics(size.none_rounds[1], size.requests, rate=rate, **options),
        f"{what}, {rate} requests per second on average, Poisson",
    )


def _confidence(bench: Bench) -> None:
    size = bench.size
    what = f"{size.requests} requests a round, at most {LIMIT} tokens, T = 0.6"
    options = {"tokens": LIMIT}
    closed = bench.rounds(
        "confidence, closed loop",
        WAYS["confidence"],
        bench.traffics(
            size.confidence_rounds[0], size.requests, concurrency=size.concurrency, **options
        ),
        f"{what}, {size.concurrency} at once",
    )
    rate = _open_rate(closed)
    bench.rounds(
        "confidence, open loop",
        WAYS["confidence"],
        bench.traffics(
            size.confidence_rounds[1], size.requests, rate=rate, first=len(closed), **options
        ),
        f"{what}, {rate} requests per second on average, Poisson",
    )


def _open_rate(closed: Sequence[Mapping[str, Run]]) -> float:
    served = statistics.median(runs["stock"]["requests per second"] for runs in closed)
    return round(SHARE * float(served), 2)


def _concurrency(bench: Bench) -> None:
    for level in bench.size.levels:
        requests = _requests_at(level)
        options = {"tokens": LIMIT, "concurrency": level}
        bench.rounds(
            f"concurrency {level}",
            WAYS["concurrency"],
            bench.traffics(bench.size.level_rounds, requests, **options),
            f"{requests} requests a round, at most {LIMIT} tokens, T = 0.6, {level} at once",
        )


def _requests_at(level: int) -> int:
    return min(max(2 * level, 16), 384)


SECTIONS: dict[str, Callable[[Bench], None]] = {
    "memory": _memory,
    "none": _none,
    "confidence": _confidence,
    "concurrency": _concurrency,
}


def _runs(size: Size, sections: Sequence[str]) -> int:
    rounds = {
        "memory": 1,
        "none": sum(size.none_rounds),
        "confidence": sum(size.confidence_rounds),
        "concurrency": len(size.levels) * size.level_rounds,
    }
    return sum(rounds[name] * len(WAYS[name]) for name in sections)


METRICS = {
    name: name
    for name in (
        "tokens per second",
        "requests per second",
        "answer, p50 ms",
        "first token, p50 ms",
        "between tokens, p50 ms",
        "tokens",
        "API process, µs per token",
    )
}


def _report(found: Mapping[str, Any]) -> None:
    for name, section in found.items():
        if "rounds" in section:
            print(f"\n{name}: {section['setting']}")
            for way in section["rounds"][0]:
                if way != "stock":
                    print(compare(section["rounds"], METRICS, title=name, ours=way, peer="stock"))
        elif "ways" in section:
            print(f"\n{name}: {section['setting']}\n{section['ways']}")


if __name__ == "__main__":
    main()
