"""Pauses of the machine itself, as a process sees them that does nothing but sleep.

On a shared virtual machine all cores stand still now and then, for up to a second. A latency that
spans such a pause says nothing about the server, so tails are reported with them and without, as
jHiccup (Tene 2012) tells the two apart. A scheduler does not keep a sleeper waiting for as long as
`LEAST_SECONDS`, however busy the cores are.
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
"""When something began (``time.monotonic``), and how many seconds it took."""


@dataclass(slots=True)
class Pauses:
    """Known once the context of `watched` is left."""

    spans: list[Timed] = field(default_factory=list)

    def outside(self, values: Sequence[Timed]) -> list[float]:
        """Seconds of those that no pause has touched."""
        return [
            seconds
            for began, seconds in values
            if not any(at < began + seconds and began < at + long for at, long in self.spans)
        ]


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest rank; NaN of nothing."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else float("nan")


@contextlib.contextmanager
def watched() -> Iterator[Pauses]:
    """Note the machine's pauses meanwhile."""
    found = Pauses()
    command = (sys.executable, "-u", "-m", "benchmarks.shared.pauses")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it sleeps from now on
        try:
            yield found
        finally:
            process.terminate()
            lines = process.stdout.read().splitlines()
    found.spans += [(float(at), float(long)) for at, long in map(str.split, lines)]


def main() -> None:
    """Print each pause until the process is ended."""
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
