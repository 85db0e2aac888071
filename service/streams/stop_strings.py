"""Stop strings and stop tokens that apply to the answer alone.

vLLM applies them to all text, so they fire inside reasoning, where clients do not mean them
(evaluation harnesses send some with every call). The main stream of a request that may think
therefore runs without them, and this module applies them after each token, as vLLM does, from the
first visible character of the answer on. White space before it is layout, which also ends an
injected closing, where no stop string applies.
"""

import copy
from dataclasses import dataclass, field

from vllm.outputs import RequestOutput
from vllm.sampling_params import SamplingParams

__all__ = ["AnswerStops", "without_stops"]


def without_stops(params: SamplingParams, ids: frozenset[int]) -> SamplingParams:
    """Return the parameters without stop strings and without the stop tokens `ids`."""
    own = params.clone()
    own.stop = []
    own.stop_token_ids = [each for each in own.stop_token_ids or () if each not in ids]
    own._all_stop_token_ids = own.all_stop_token_ids - ids  # otherwise min_tokens suppresses them
    return own


@dataclass(slots=True)
class AnswerStops:
    """Applies stops to the answer token by token; text that may begin a stop is held back."""

    params: SamplingParams
    ids: frozenset[int] = frozenset()
    """Ids of stop tokens."""
    longest: int = field(init=False)
    tail: str = field(default="", init=False)
    """The last characters of the answer, which may begin a stop string."""
    stopped: bool = field(default=False, init=False)
    """True after a stop."""
    _begun: bool = field(default=False, init=False)  # the answer has visible text

    def __post_init__(self) -> None:
        self.longest = max((len(each) for each in self.params.stop or ()), default=1)

    def take(self, output: RequestOutput, generated: int) -> RequestOutput:
        """Return the delta of one token with the text that can be sent; a completed stop ends it.

        The token is the `generated`-th of its stream.
        """
        before = self.tail
        text = before + output.outputs[0].text
        begin = 0 if self._begun else len(text) - len(text.lstrip())
        self._begun = begin < len(text) or self._begun
        if not self._begun:
            return output
        found = self._found(output, text, max(len(before), begin), begin, generated)
        self.tail = text[max(len(text) - self.longest + 1, begin) :]
        if found is not None:
            self.stopped = True
            stop, end = found
            return self._delta(output, text[:end], before, stopped=stop)
        if output.outputs[0].finish_reason is not None:
            return self._delta(output, text, before)
        due = text if self.params.include_stop_str_in_output else text[: len(text) - len(self.tail)]
        return self._delta(output, due, before)

    def leave(self, output: RequestOutput) -> RequestOutput:
        """Return the delta of a token outside the answer, after any text that was held back."""
        before, self.tail, self._begun = self.tail, "", False
        return self._delta(output, before + output.outputs[0].text, before) if before else output

    def _found(
        self, output: RequestOutput, text: str, searched: int, begin: int, generated: int
    ) -> tuple[str | int, int] | None:
        """Return the first completed stop and where it ends the text; None without one."""
        if generated <= self.params.min_tokens:
            return None
        included = self.params.include_stop_str_in_output
        for token in output.outputs[0].token_ids:
            if token in self.ids:
                return token, len(text) if included else len(self.tail)
        ends = [
            (start + len(stop), number)
            for number, stop in enumerate(self.params.stop or ())
            if (start := text.find(stop, max(searched - len(stop) + 1, begin))) >= 0
        ]
        if not ends:
            return None
        end, number = min(ends)
        stop = self.params.stop[number]
        return stop, end if included else end - len(stop)

    def _delta(
        self, output: RequestOutput, text: str, before: str, stopped: str | int | None = None
    ) -> RequestOutput:
        delta = copy.copy(output)
        completion = copy.copy(output.outputs[0])
        sent = len(before) if self.params.include_stop_str_in_output else 0
        completion.text = text[sent:]
        if stopped is not None:
            completion.finish_reason, completion.stop_reason = "stop", stopped
            delta.finished = True
        delta.outputs = [completion]
        return delta
