r"""Agreement of two answers: with an exit and without.

Answers that both have a ``\boxed{}`` are compared by `stepgrpo_core.sameness`, like in the grader
and the policies, and formulas by `stepgrpo_math` in a separate process with a limit on CPU time.
Answers without boxes agree if their texts are equal, ignoring case and white space. Short texts
that are not equal differ. Long ones can be paraphrases, so they are not judged.
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
SECONDS = 5.0  # of CPU time
STALLED_S = 600.0  # of wall time, for a worker that neither computes nor finishes


def compare_texts(left: str, right: str) -> Agreement | None:
    """Return the agreement as far as it needs no mathematics, or None."""
    one, other = last_box(left), last_box(right)
    if one is not None and other is not None:
        return _compare_boxes(one, other)
    if one is not None or other is not None:
        return "differed"  # only one has a boxed result
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
    """Compares formulas in one worker process, started on first use."""

    def __init__(self) -> None:
        self._pool: Any = None

    async def compare(self, left: str, right: str) -> Agreement:
        """Return the agreement of two answers. Never raises."""
        found = compare_texts(left, right)
        if found is not None:
            return found
        boxes = last_box(left), last_box(right)
        try:
            judged: Agreement = await asyncio.wrap_future(self._ask(boxes))
            return judged
        except BrokenProcessPool:
            self.close()
        except Exception:  # noqa: BLE001, S110 - the worker stopped or did not start
            pass
        return "unjudged"

    def _ask(self, boxes: tuple[str | None, str | None]) -> Any:
        if self._pool is None:
            self._pool = pebble.ProcessPool(
                1,
                initializer=prepare_process,
                context=multiprocessing.get_context("spawn"),  # no threads inherited
            )
        return self._pool.schedule(_judge, args=boxes, timeout=STALLED_S)

    def close(self) -> None:
        """Stop the process."""
        if self._pool is not None:
            pool, self._pool = self._pool, None
            pool.stop()
            pool.join()


def _judge(left: str, right: str) -> Agreement:
    """Compare in both orders, because a comparison with a gold answer is not symmetric. Runs in the
    worker."""
    pairs = ((left, right), (right, left))
    same = {"same", "unevaluated"}
    try:
        found = run_with_cpu_limit(
            SECONDS, lambda: any(compare_answers(*pair) in same for pair in pairs)
        )
    except (Exception, CpuTimeExceeded):  # noqa: BLE001 - sympy raises anything, or takes too long
        return "unjudged"
    return "agreed" if found else "differed"
