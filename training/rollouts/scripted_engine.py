"""A public engine without a model: replays scripted tokens, for tests and experiments.

::

    engine = ScriptedEngine(lambda request: Stream((5, 6, EOS)))
    run_rollouts(engine, [RolloutRequest((1, 2), Sampling(max_tokens=8))], ExitSettings(), form)
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from stepgrpo_core.control.events import Cause
from training.rollouts.types import Delta, Request

__all__ = ["ScriptedEngine", "Stream"]


@dataclass(frozen=True, slots=True)
class Stream:
    """The tokens that a request generates, one per step, up to its limit."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...] = ()
    """Log-probabilities, one per id; empty: all 0."""
    cause: Cause = "eos"
    wait: int = 0
    """Steps before the first token."""
    top: tuple[Mapping[int, float], ...] = ()
    """Log-probabilities of the most likely tokens for each id; empty: none are reported."""


@dataclass(slots=True)
class _Running:
    request: Request
    stream: Stream
    given: int = 0
    waited: int = 0

    def advance(self) -> Delta | None:
        if self.waited < self.stream.wait:
            self.waited += 1
            return None
        place, self.given = self.given, self.given + 1
        logprobs = self.stream.logprobs or (0.0,) * len(self.stream.ids)
        limit = self.request.sampling.max_tokens
        cause: Cause | None = None
        if self.given == len(self.stream.ids):
            cause = self.stream.cause
        elif self.given == limit:
            cause = "length"
        return Delta(
            self.request.id,
            self.stream.ids[place : place + 1],
            (logprobs[place],),
            cause,
            self.stream.top[place : place + 1],
        )


@dataclass(slots=True)
class ScriptedEngine:
    """A `RolloutEngine` whose requests generate the streams of `script`."""

    script: Callable[[Request], Stream]
    requests: list[Request] = field(default_factory=list)
    """Every request that was added, in order."""
    aborted: list[str] = field(default_factory=list)
    batches: list[tuple[str, ...]] = field(default_factory=list)
    """Ids of the running requests in each step."""
    _running: dict[str, _Running] = field(default_factory=dict)

    def add(self, request: Request) -> None:
        """Start a request."""
        self.requests.append(request)
        self._running[request.id] = _Running(request, self.script(request))

    def abort(self, request_ids: Sequence[str]) -> None:
        """Stop requests."""
        for each in request_ids:
            del self._running[each]
        self.aborted += request_ids

    def step(self) -> list[Delta]:
        """Generate one token for every running request."""
        self.batches.append(tuple(self._running))
        deltas = [delta for each in self._running.values() if (delta := each.advance())]
        for delta in deltas:
            if delta.cause:
                del self._running[delta.id]
        return deltas
