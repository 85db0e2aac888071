r"""Agreement of two answers: the answer with an exit and the one without.

Of two answers with a ``\boxed{}`` `stepgrpo_core.sameness` tells, as for the grader and the
policies, and with formulas `stepgrpo_math`, in a process of its own under a limit of processor
time. Without boxes equal texts, less case and white space, agree; other short ones differ. Long
ones can say the same in other words, so of them nothing is said.
"""

import asyncio
import multiprocessing
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Literal

import pebble

from stepgrpo_core.answers import last_box
from stepgrpo_core.sameness import compare, within_bounds
from stepgrpo_math import CpuTimeExceeded, compare_answers, prepare_process, run_with_cpu_limit

__all__ = ["Agreement", "AnswerComparer", "compare_texts"]

Agreement = Literal["agreed", "differed", "unjudged"]

SHORT_WORDS = 12
SECONDS = 5.0  # of processor time
STALLED_S = 600.0  # of wall time, for a process that is neither busy nor done


def compare_texts(left: str, right: str) -> Agreement | None:
    """Return what can be said without mathematics; None: it takes that."""
    one, other = last_box(left), last_box(right)
    if one is not None and other is not None:
        return _compare_boxes(one, other)
    if one is not None or other is not None:
        return "differed"  # one has a result, and the other has none
    words = left.casefold().split(), right.casefold().split()
    if words[0] == words[1]:
        return "agreed"
    return "differed" if max(map(len, words)) <= SHORT_WORDS else "unjudged"


def _compare_boxes(one: str, other: str) -> Agreement | None:
    found = {compare(one, other), compare(other, one)}
    if found & {"same", "unevaluated"}:
        return "agreed"
    if None not in found:
        return "differed"
    return None if within_bounds(one) and within_bounds(other) else "unjudged"


class AnswerComparer:
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
            judged: Agreement = await asyncio.wrap_future(self._ask(boxes))
            return judged
        except BrokenProcessPool:
            self.close()
        except Exception:  # noqa: BLE001, S110 - the process was ended, or never came to be
            pass
        return "unjudged"

    def _ask(self, boxes: tuple[str | None, str | None]) -> Any:
        if self._pool is None:
            self._pool = pebble.ProcessPool(
                1,
                initializer=prepare_process,
                context=multiprocessing.get_context("spawn"),  # no threads inherited
            )
        return self._pool.schedule(_judged, args=boxes, timeout=STALLED_S)

    def close(self) -> None:
        """End the process."""
        if self._pool is not None:
            pool, self._pool = self._pool, None
            pool.stop()
            pool.join()


def _judged(left: str, right: str) -> Agreement:
    """Compare in either order, in the process: a comparison with a gold is not symmetric."""
    pairs = ((left, right), (right, left))
    same = {"same", "unevaluated"}
    try:
        found = run_with_cpu_limit(
            SECONDS, lambda: any(compare_answers(*pair) in same for pair in pairs)
        )
    except (Exception, CpuTimeExceeded):  # noqa: BLE001 - sympy raises anything, or takes too long
        return "unjudged"
    return "agreed" if found else "differed"
