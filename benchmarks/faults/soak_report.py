"""The report of a soak."""

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from stepgrpo_core.savings.intervals import student_t

__all__ = ["page", "slope"]

WARM_SHARE = 1 / 3  # of a life; everything that is created once exists by then


PAGE = """\
# Soak

To see what a server survives, read this report; `make soak` repeats the run and writes this page
(`benchmarks/faults/soak.py` says what it does and checks).

{minutes} minutes of traffic, {whole_minutes} with the starts; {at_once} clients at once; demo-base,
float32, vLLM {vllm}; {machine}; commit {commit}; {date}.

- **{requests:,} requests**, {cut:,} of them from clients that left ({cut_share:.0%}); {tokens:,}
  tokens. Before servers ended: {verdicts}.
  While they ended: {ends}.
- **Sums**: exact in every server life (delivered − injected + discarded + aborted + probe = the
  engine's own counter; started = the sum of outcomes; the state file = what the server counted).
- **Tasks and descriptors**: back to what they were.
- **Memory** per 1 000 requests in the longest life, after its first third, with 95 % intervals:
  {slopes}. The limit for the API process is 1 024 KiB. On CPUs vLLM's engine
  has a kernel for every batch size, of which oneDNN keeps 1 024 ([log](LOG.md)).
- **Unexplained**: nothing. A response that is neither whole nor left by its client came only while
  a server ended: refusals of a drain (503), errors of a killed engine (500), streams that broke
  with a killed server, and refused connections (nobody there) until the next start.

| life | traffic, s | requests | ended by | status | MiB of API and engine, first → last | tasks | \
descriptors | sequences of the holdout on disk: at least, found, at most |
|---|---|---|---|---|---|---|---|---|
{rows}

In every life the disk was full from one fifth to two fifths of it (a limit on file sizes; in
{waited} of {lives} the log says that sums waited in memory), the wall clock of the server's Python
jumped seven hours ahead, three days back, 400 days ahead, and back to the right time, and the judge
of policy `verifier` was a port on which nobody listens. The machine's own clock was not set, and no
disk was filled to the brim; `tests/integration/test_faults_disk.py` does the latter.
"""


def slope(figures: Mapping[str, Any]) -> dict[str, tuple[float, float, float]]:
    """Return KiB per 1 000 requests in the longest life, after its first third, with a 95 %
    interval, for the API process and the engine; empty if the life is too short.
    """
    life = max(figures["lives"], key=lambda each: each["seconds"])
    samples = life["samples"][math.ceil(len(life["samples"]) * WARM_SHARE) :]
    if len(samples) < 5:
        return {}
    requests = [each[0] for each in samples]
    return {
        name: _fit(requests, [each[place] for each in samples])
        for place, name in ((1, "API process"), (2, "engine"))
    }


def _fit(requests: Sequence[int], sizes: Sequence[int]) -> tuple[float, float, float]:
    """Fit least squares. The interval assumes independent samples, but neighboring ones are not, so
    only every fourth is used to estimate the spread.
    """
    line = statistics.linear_regression(requests, sizes)
    rest = [y - line.slope * x - line.intercept for x, y in zip(requests, sizes, strict=True)]
    mean = statistics.fmean(requests)
    spread = sum((x - mean) ** 2 for x in requests)
    count = max(len(requests) / 4, 3)
    variance = sum(each**2 for each in rest) / len(rest)
    error = math.sqrt(variance * len(requests) / max(count - 2, 1) / spread)
    each = 1000 / 1024
    half = student_t(max(round(count) - 2, 1)) * error
    return line.slope * each, (line.slope - half) * each, (line.slope + half) * each


def page(figures: Mapping[str, Any]) -> str:
    """Return the text of docs/soak.md."""
    lives = figures["lives"]
    verdicts, ends = Counter[str](), Counter[str]()
    for life in lives:
        verdicts.update(life["verdicts"])
        ends.update(life["ending_verdicts"])
    requests = sum(life["requests"] for life in lives)
    cut = sum(life["cut"] for life in lives)
    minutes = sum(life["seconds"] for life in lives) / 60
    slopes = [
        f"{name} {each:+.0f} KiB ({low:+.0f} to {high:+.0f})"
        for name, (each, low, high) in slope(figures).items()
    ]
    return PAGE.format(
        minutes=round(minutes),
        whole_minutes=round(figures["seconds"] / 60),
        requests=requests,
        cut=cut,
        cut_share=cut / requests,
        tokens=sum(life["tokens"] for life in lives),
        verdicts=_counted(verdicts),
        ends=_counted(ends),
        slopes="; ".join(slopes),
        waited=sum(life["waited"] > 0 for life in lives),
        lives=len(lives),
        rows="\n".join(_row(number, life) for number, life in enumerate(lives, 1)),
        **{name: figures[name] for name in ("at_once", "vllm", "machine", "commit", "date")},
    )


def _counted(verdicts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} × {name}" for name, count in sorted(verdicts.items()))


def _row(number: int, life: Mapping[str, Any]) -> str:
    first, last = life["samples"][0], life["samples"][-1]
    sizes = ", ".join(f"{first[place] >> 20} → {last[place] >> 20}" for place in (1, 2))
    ends = {
        "drain": "SIGTERM",
        "engine": "kill -9 of the engine",
        "server": "kill -9 of the server",
    }
    held = f"{life['after']['tasks']} | {life['after']['descriptors']}"
    least, found, most = life["sums"]
    return (
        f"| {number} | {life['seconds']:.0f} | {life['requests']:,} | {ends[life['ending']]} | "
        f"{life['exit_status']} | {sizes} | {held} | {least:,}, {found:,}, {most:,} |"
    )
