"""A server with a sampled API process: `python -m benchmarks.shared.sampled MODULE [ARGUMENTS]`.

Every 4 ms of processor time the kernel sends a signal, and its handler records the stack of the
main thread, where the event loop runs. Idle time is not sampled. SIGUSR2 writes the recorded
stacks to the file named by BENCH_STACKS, and resets them.
"""

import json
import os
import runpy
import signal
import sys
from collections import Counter
from pathlib import Path
from types import FrameType

from training.files import write_text

__all__ = ["INTERVAL_SECONDS", "STACKS", "Sampler"]

INTERVAL_SECONDS = 0.004  # the kernel's usual tick
STACKS = "BENCH_STACKS"


class Sampler:
    """A counter of stacks: (file, function) from the outermost to the innermost frame."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[tuple[str, str], ...]] = Counter()

    def start(self) -> None:
        """Start sampling; call it from the main thread."""
        signal.signal(signal.SIGPROF, self._note)
        signal.setitimer(signal.ITIMER_PROF, INTERVAL_SECONDS, INTERVAL_SECONDS)

    def stop(self) -> None:
        """Stop sampling."""
        signal.setitimer(signal.ITIMER_PROF, 0)

    def _note(self, _: int, frame: FrameType | None) -> None:
        stack: list[tuple[str, str]] = []
        while frame is not None:
            code = frame.f_code
            stack.append((code.co_filename, code.co_qualname))
            frame = frame.f_back
        self.counts[tuple(reversed(stack))] += 1

    def write(self, path: Path) -> None:
        """Write all counts as JSON, and reset them."""
        counts, self.counts = self.counts, Counter()  # sampling continues during the write
        rows = [{"stack": list(stack), "count": count} for stack, count in counts.items()]
        write_text(path, json.dumps(rows))


def main() -> None:
    """Run the module under the sampler."""
    sampler, path = Sampler(), Path(os.environ[STACKS])
    signal.signal(signal.SIGUSR2, lambda *_: sampler.write(path))
    sampler.start()
    module, *arguments = sys.argv[1:]
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
