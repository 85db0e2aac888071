r"""Whether an exit changed the answer.

Of two answers with a ``\boxed{}`` math-verify tells, in a process of its own that is killed after
some seconds: it reads hostile LaTeX with sympy, which can compute for ever. Without boxes equal
texts, less case and white space, agree; other short ones differ. Long ones can say the same in
other words, so of them nothing is said.
"""

import asyncio
import contextlib
import logging
import multiprocessing
import resource
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Literal

import pebble

from stepgrpo_core.answers import last_box, same_value

__all__ = ["Agreement", "Judges", "compare_texts"]

Agreement = Literal["agreed", "differed", "unjudged"]

SHORT_WORDS = 12
SECONDS = 5.0
MEMORY_BYTES = 4 << 30
MAX_CHARACTERS = 2_000  # of a box


def compare_texts(left: str, right: str) -> Agreement | None:
    """What can be said without mathematics; None: it takes that."""
    one, other = last_box(left), last_box(right)
    if one is not None and other is not None:
        if same_value(one, other):
            return "agreed"
        return None if max(len(one), len(other)) <= MAX_CHARACTERS else "unjudged"
    if one is not None or other is not None:
        return "differed"  # one has a result, and the other has none
    words = left.casefold().split(), right.casefold().split()
    if words[0] == words[1]:
        return "agreed"
    return "differed" if max(map(len, words)) <= SHORT_WORDS else "unjudged"


class Judges:
    """One process that compares formulas, started with the first that needs it."""

    def __init__(self) -> None:
        self._pool: Any = None

    async def compare(self, left: str, right: str) -> Agreement:
        """Whether two answers say the same; never raises."""
        found = compare_texts(left, right)
        if found is not None:
            return found
        boxes = last_box(left), last_box(right)
        try:
            return "agreed" if await asyncio.wrap_future(self._ask(boxes)) else "differed"
        except BrokenProcessPool:
            self.close()
        except Exception:  # noqa: BLE001, S110 - sympy raises anything, or takes too long
            pass
        return "unjudged"

    def _ask(self, boxes: tuple[str | None, str | None]) -> Any:
        if self._pool is None:
            self._pool = pebble.ProcessPool(
                1,
                initializer=_prepare,
                context=multiprocessing.get_context("spawn"),  # no threads inherited
            )
        return self._pool.schedule(_equal, args=boxes, timeout=SECONDS)

    def close(self) -> None:
        """End the process."""
        if self._pool is not None:
            pool, self._pool = self._pool, None
            pool.stop()
            pool.join()


# What follows runs in the process.


def _prepare() -> None:
    import math_verify  # noqa: F401, PLC0415 - loaded before any limit runs

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that we set no alarm
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    with contextlib.suppress(ValueError):  # a lower limit is set already
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, hard))


def _equal(left: str, right: str) -> bool:
    """As math-verify sees it, in either order: its `verify` is not symmetric."""
    from math_verify import parse, verify  # noqa: PLC0415

    one, other = (
        parse(f"\\boxed{{{box}}}", parsing_timeout=None, raise_on_error=True)
        for box in (left, right)
    )
    return any(
        verify(*pair, timeout_seconds=None, raise_on_error=True)
        for pair in ((one, other), (other, one))
    )
