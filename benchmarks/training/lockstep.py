"""The barrier of lock-step rounds alone, as a peer for the scheduling of rollouts.

Theory. In lock-step a round contains the next request of each live sequence, and ends when its
slowest request is done. `Lockstep` is that barrier and nothing else: added requests wait until
nothing runs. Under `run_rollouts` with sequential probing, where a sequence stops at its marker,
it gives rounds with our controller, our requests, our engine and our seeds, so a comparison with
the bare engine compares the scheduling alone.

`shared.rounds` are the rounds of the published code. This barrier is cheaper: a sequence that
closes its thinking itself continues with its answer in the same round, a marker that may not be
probed (`min_interval`) ends no round, and no token passes through vLLM's output processor.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from training.rollouts.batch import Delta, Request, RolloutEngine

__all__ = ["Lockstep"]


@dataclass(slots=True)
class Lockstep:
    """A `RolloutEngine` whose requests start together and wait for the slowest."""

    engine: RolloutEngine
    rounds: int = 0
    """Number of rounds started so far."""
    _running: set[str] = field(default_factory=set)
    _waiting: dict[str, Request] = field(default_factory=dict)

    def add(self, request: Request) -> None:
        """Queue a request for the next round."""
        self._waiting[request.id] = request

    def abort(self, request_ids: Sequence[str]) -> None:
        """Drop requests, running or waiting."""
        running = [each for each in request_ids if each in self._running]
        for each in request_ids:
            self._waiting.pop(each, None)
        self._running.difference_update(running)
        if running:
            self.engine.abort(running)

    def step(self) -> Sequence[Delta]:
        """Advance the round; start the next one when all its requests have ended."""
        if not self._running:
            self._start_round()
        deltas = self.engine.step()
        self._running.difference_update(delta.id for delta in deltas if delta.cause)
        return deltas

    def _start_round(self) -> None:
        self.rounds += 1
        self._running.update(self._waiting)
        for request in self._waiting.values():
            self.engine.add(request)
        self._waiting.clear()
