"""Pauses of the machine itself, as seen by a process that only sleeps.

On a shared virtual machine all cores stand still now and then, for up to a second. A latency that
spans such a pause says nothing about the server, so tails are reported with and without them, like
jHiccup (Tene 2012), which measures such pauses. A scheduler does not keep a sleeper waiting for as
long as `LEAST_SECONDS`, however busy the cores are.
"""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

__all__ = ["LEAST_SECONDS", "Pauses", "Timed", "percentile", "watched"]

SLEEP_SECONDS = 0.005
LEAST_SECONDS = 0.05

Timed = tuple[float, float]
"""Start (``time.monotonic``) and duration in seconds."""


@dataclass(slots=True)
class Pauses:
    """Pauses, complete once the context of `watched` has ended."""

    spans: list[Timed] = field(default_factory=list)

    def outside(self, values: Sequence[Timed]) -> list[float]:
        """Return the seconds of the intervals that overlap no pause."""
        return [
            seconds
            for began, seconds in values
            if not any(at < began + seconds and began < at + long for at, long in self.spans)
        ]


def percentile(values: Sequence[float], share: float) -> float:
    """Return the percentile by nearest rank; NaN for no values."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else float("nan")


@contextlib.contextmanager
def watched() -> Iterator[Pauses]:
    """Record the machine's pauses within the context."""
    found = Pauses()
    command = (sys.executable, "-u", "-m", "benchmarks.shared.pauses")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it sleeps from here on
        try:
            yield found
        finally:
            process.terminate()
            lines = process.stdout.read().splitlines()
    found.spans += [(float(at), float(long)) for at, long in map(str.split, lines)]


def main() -> None:
    """Print each pause until the process is terminated."""
    print("sleeping")
    last = time.monotonic()
    while True:
        time.sleep(SLEEP_SECONDS)
        now = time.monotonic()
        if now - last >= LEAST_SECONDS:
            print(last, now - last)
        last = now


if __name__ == "__main__":
    main()
