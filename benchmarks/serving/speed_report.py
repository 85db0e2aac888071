"""The page docs/speed.md, from the figures of docs/speed.json alone."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.shared.reports import number, shown
from stepgrpo_core.savings.intervals import Estimate

__all__ = ["SERVED", "Found", "levels", "page", "ratio"]

Found = Mapping[str, Any]

HEAD = """# Speed

To learn what early exit costs and gains at the server, read the summary; to repeat the
measurement on your machine, run `make bench` (minutes; `make bench QUICK=1` only shows that it
runs). Its part `python -m benchmarks.serving.speed` writes this page from [speed.json](speed.json).

The model is demo-base ({parameters}) in float32 on vLLM {vllm}, {machine}. Servers, client and
engine share these cores. Each engine computes in the process of its scheduler
(`UniProcExecutor`), with one thread and blocks of 32 tokens. Runs alternate. Every figure is a
median. A ratio is the geometric mean of the ratios of runs in the same round, with its 95 %
interval in brackets (Student's t of their logarithms; a single round has none). Other brackets are
ranges. The load comes from vLLM's own serving benchmark (`vllm.benchmarks.serve`), over HTTP,
streaming.

| part | commit | date, UTC | load average before |
|---|---|---|---|
{made}
"""
PARAMETERS = "4 layers, hidden size 192"

SERVED = {
    "tokens per second": "output tokens per second",
    "requests per second": "requests per second",
    "answer, p50 ms": "whole answer, p50 ms",
    "first token, p50 ms": "first token, p50 ms",
    "between tokens, p50 ms": "between tokens, p50 ms",
    "API process, µs per token": "API process, µs of processor time per token",
}
TRIAL = {
    "seconds": "seconds of a run",
    "latency": "seconds to the whole answer, p50",
    "generated": "generated tokens per completion",
    "prefilled": "uncached prompt tokens per completion",
    "tokens": "tokens per completion",
}
LEAST = 0.97  # of stock's throughput, under policy none


def page(found: Found) -> str:
    """Return the whole page."""
    parts = [
        head(found["made"]),
        summary(found),
        none(found),
        confidence(found),
        probing(found["probing"]),
        declined(found["probing"]),
        wrapper(found["wrapper"]),
        memory(found["memory"]),
        concurrency(found),
        hotpath(found["hotpath"]),
        failures(found["failures"]),
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def summary(found: Found) -> str:
    """Return the main figures in one table."""
    closed = found["served"]["confidence, closed loop"]["ways"]
    plain = found["served"]["none, closed loop"]["ways"]["none"]
    made, trial = found["made"]["serving"], found["probing"]["declined"]["per trial"]
    rows = [
        (
            "| closed loop | output tokens per second | requests per second | whole answer, p50 "
            "| tokens | accuracy, points |"
        ),
        "|---|---|---|---|---|---|",
        (
            f"| `none`, fixed lengths | {ratio(plain['tokens per second'])} "
            f"| {ratio(plain['requests per second'])} | {ratio(plain['answer, p50 ms'])} | | |"
        ),
    ]
    for way, each in closed.items():
        names = ("tokens per second", "requests per second", "answer, p50 ms", "tokens")
        cells = " | ".join(ratio(each[name]) for name in names)
        rows.append(f"| {way} | {cells} | {points(found['accuracy'][way])} |")
    parallel = found["probing"]["sequential"]["latency"]
    added = found["wrapper"]["ways"]
    return "\n".join(
        [
            "## Summary",
            "",
            (
                f"Ratios to the server of vLLM {made['vllm']}, with 95 % intervals; "
                f"{made['machine']}, load average {made['load']} before, commit {made['commit']}:"
            ),
            "",
            *rows,
            "",
            (
                f"With parallel probes the answer takes {ratio(parallel)} of its time with "
                f"sequential ones; a declined probe costs {_spread(trial['busy ms'])} ms of the "
                f"busy machine. The wrapper alone adds {_spread(added['none']['added'])} µs to a "
                "token under `none` and "
                f"{_spread(added['confidence, trials decline']['added'])} µs under `confidence`."
            ),
        ]
    )


def points(each: Found) -> str:
    """Format a paired difference in points, with its interval."""
    values = (100 * each[name] for name in ("difference", "low", "high"))
    return "{:+.1f} ({:+.1f} to {:+.1f})".format(*values)


def head(made: Found) -> str:
    """Return the introduction: how the figures were measured."""
    rows = [
        f"| {name} | {each['commit']} | {each['date']} | {each['load']} |"
        for name, each in made.items()
    ]
    one = made["serving"]
    return HEAD.format(
        parameters=PARAMETERS, vllm=one["vllm"], machine=one["machine"], made="\n".join(rows)
    )


def none(found: Found) -> str:
    """Return the section on policy none against stock."""
    loops = {name: each for name, each in found["served"].items() if name.startswith("none")}
    parts = ["## Policy `none` against stock vLLM"]
    for name, each in loops.items():
        figures = each["ways"]["none"]
        if "closed" in name:
            reached = figures["tokens per second"]
            parts.append(
                f"The aim is {LEAST} of stock's throughput: {_verdict(reached)}, {ratio(reached)}."
            )
        parts.append(f"{name}: {each['setting']}, {each['rounds']} rounds.")
        parts.append(ratios(figures, SERVED, ours="ours", peer="stock"))
    return "\n\n".join(parts)


def _verdict(reached: Found) -> str:
    """Return the verdict that the interval allows."""
    if reached["low"] >= LEAST:
        return "reached"
    return "not reached" if reached["high"] < LEAST else "neither shown nor excluded"


def ratios(figures: Found, names: Mapping[str, str], *, ours: str, peer: str) -> str:
    """Return a table of medians, and of ratios with intervals."""
    rows = [f"| | {peer} | {ours} | ratio |", "|---|---|---|---|"]
    for name, title in names.items():
        each = figures[name]
        rows.append(
            f"| {title} | {number(each['peer'])} | {number(each['ours'])} | {ratio(each)} |"
        )
    return "\n".join(rows)


def ratio(each: Found) -> str:
    """Format a ratio with its interval."""
    return shown(Estimate(each["value"], each["low"], each["high"]))


def confidence(found: Found) -> str:
    """Return the section on policy confidence and the trained model against stock."""
    graded = found["accuracy"]
    problems = graded["stock"]["problems"]
    parts = [
        "## Answers with early exit",
        (
            f"Both loops together: {problems} problems, each answered once by each server and "
            "graded by the demo world. Differences to stock are paired, with 95 % intervals."
        ),
        "| | accuracy, % | against stock, points | tokens, % of stock's | with probes, % |\n"
        "|---|---|---|---|---|\n" + "\n".join(_graded(*item) for item in graded.items()),
    ]
    for name, each in found["served"].items():
        if name.startswith("confidence"):
            parts.append(f"{name}: {each['setting']}, {each['rounds']} rounds; ratios to stock.")
            parts.append(_by_way(each["ways"]))
    return "\n\n".join(parts)


def _graded(way: str, each: Found) -> str:
    difference = "" if way == "stock" else points(each)
    share, trials = 100 * each["tokens of stock"], 100 * each["with trials"]
    return f"| {way} | {100 * each['accuracy']:.1f} | {difference} | {share:.0f} | {trials:.0f} |"


def _by_way(ways: Found) -> str:
    names = ("tokens", "answer, p50 ms", "requests per second", "API process, µs per token")
    rows = [
        "| | tokens | whole answer, p50 | requests per second | API process, per token |",
        "|---|---|---|---|---|",
    ]
    rows += [
        f"| {way} | {' | '.join(ratio(figures[name]) for name in names)} |"
        for way, figures in ways.items()
    ]
    return "\n".join(rows)


def probing(found: Found) -> str:
    """Return the section on parallel against sequential probes."""
    return "\n\n".join(
        [
            "## Parallel and sequential probes",
            (
                f"{found['setting']}, {found['rounds']} rounds, without HTTP. *Sequential* is a "
                "client of stock vLLM's engine that ends its stream at every marker, runs the "
                "probe, and then continues or answers (`benchmarks/serving/probing.py`). Each runs "
                "alone."
            ),
            ratios(found["sequential"], TRIAL, ours="parallel", peer="sequential"),
            "Against a run without exits:",
            ratios(found["none"], TRIAL, ours="parallel", peer="none"),
        ]
    )


def declined(found: Found) -> str:
    """Return the section on the cost of a declined probe."""
    each = found["declined"]
    rows = [
        (
            "| probes per completion | seconds of a run | seconds to the whole answer, p50 "
            "| generated tokens | uncached prompt tokens |"
        ),
        "|---|---|---|---|---|",
    ]
    names = ("trials", "seconds", "latency", "generated", "prefilled")
    rows += [
        f"| {' | '.join(number(run[name]) for name in names)} |" for run in each["runs"].values()
    ]
    cost = {name: _spread(value) for name, value in each["per trial"].items()}
    return "\n\n".join(
        [
            "## Cost of a declined probe",
            (
                "The same completions without exits (threshold 1) and with at most 0, 1, 2 or 4 "
                "probes; per completion."
            ),
            "\n".join(rows),
            (
                f"One probe adds {cost['generated']} generated and {cost['prefilled']} uncached "
                f"prompt tokens, {cost['busy ms']} ms of the busy machine's time, and "
                f"{cost['latency ms']} ms to its answer."
            ),
        ]
    )


def _spread(each: Found) -> str:
    low, middle, high = (number(each[name]) for name in ("low", "median", "high"))
    return f"{middle} ({low} to {high})"


def wrapper(found: Found) -> str:
    """Return the section on the wrapper alone."""
    rows = [
        "| | µs per token | more than bare | KiB per open stream |",
        "|---|---|---|---|",
    ]
    rows += [
        f"| {way} | {_spread(each['microseconds'])} | {_spread(each['added'])} "
        f"| {number(each['KiB'])} |"
        for way, each in found["ways"].items()
    ]
    return "\n\n".join(
        [
            "## The wrapper alone",
            (
                f"{found['setting']}, without a model and without HTTP: processor time of the "
                "event loop, with uvloop. *Bare* reads the scripted engine as vLLM's chat layer "
                "does."
            ),
            "\n".join(rows),
        ]
    )


def memory(found: Found | None) -> str:
    """Return the section on open streams."""
    if found is None:
        return "## Memory of open streams\n\nNot measured."
    rows = ["| | MiB per 1 000 open streams | MiB idle |", "|---|---|---|"]
    rows += [
        f"| {way} | {number(each['MiB per 1000 streams'])} | {number(each['MiB idle'])} |"
        for way, each in found["ways"].items()
    ]
    return "\n\n".join(
        [
            "## Memory of open streams",
            f"{found['setting']}; resident memory that the API process gained since the first.",
            "\n".join(rows),
        ]
    )


def concurrency(found: Found) -> str:
    """Return the section on growth with concurrency."""
    rows = [
        (
            "| at once | stock, tokens/s | `none`, ratio | stock, requests/s | `confidence`, ratio "
            "| stock, whole answer p50 ms | `none`, ratio | `confidence`, ratio |"
        ),
        "|---|---|---|---|---|---|---|---|",
    ]
    for level, ways in levels(found):
        plain, exits = ways["none"], ways["confidence"]
        cells = [
            str(level),
            number(plain["tokens per second"]["peer"]),
            ratio(plain["tokens per second"]),
            number(plain["requests per second"]["peer"]),
            ratio(exits["requests per second"]),
            number(plain["answer, p50 ms"]["peer"]),
            ratio(plain["answer, p50 ms"]),
            ratio(exits["answer, p50 ms"]),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n\n".join(
        [
            "## Growth with concurrency",
            "Closed loop, answers of natural length, T = 0.6.",
            "\n".join(rows),
            "![Requests per second and time to the answer, by concurrency](speed.png)",
        ]
    )


def levels(found: Found) -> list[tuple[int, Found]]:
    """Return concurrency and its figures by way, ascending."""
    named = [
        (int(name.removeprefix("concurrency ")), each["ways"])
        for name, each in found["served"].items()
        if name.startswith("concurrency ")
    ]
    return sorted(named, key=lambda item: item[0])


def hotpath(found: Found) -> str:
    """Return the section on the time of the API process."""
    parts = [
        "## Where the API process spends its time",
        (
            f"{found['setting']}. A sampling profile takes one sample every 4 ms of processor "
            "time and counts it for the innermost of these parts; compiled code and the standard "
            "library count for their callers. Function names are those of the commit above. The "
            "[log](LOG.md) says what was made faster, and by how much."
        ),
    ]
    profiles = found["profiles"]
    for title, key in (("part", "parts"), ("function of this project, self time", "functions")):
        rows = [
            f"| {title}, µs per token | " + " | ".join(f"`{name}`" for name in profiles) + " |",
            "|---|" + "---|" * len(profiles),
        ]
        named: dict[str, None] = {}
        for each in profiles.values():
            named.update(dict.fromkeys(each[key]))
        for name in named:
            values = (each[key].get(name) for each in profiles.values())
            cells = ("" if value is None else number(value) for value in values)
            rows.append(f"| {name} | {' | '.join(cells)} |")
        if key == "parts":
            total = (number(each["microseconds"]) for each in profiles.values())
            rows.append(f"| all | {' | '.join(total)} |")
        parts.append("\n".join(rows))
    return "\n\n".join(parts)


def failures(found: Sequence[str]) -> str:
    """Return the number of runs in which requests failed."""
    lines = [f"- {each}" for each in found] or ["No request failed in any run."]
    return "\n\n".join(["## Failures", "\n".join(lines)])
