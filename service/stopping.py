"""Stop strings that apply to the answer alone.

vLLM looks for them in everything, so they fire inside reasoning, where clients do not mean them
(evaluation harnesses send some with every call). The main stream of a request under an exit policy
therefore runs without, and they are looked for here: after each token, as vLLM does.
"""

import copy
from dataclasses import dataclass, field

from vllm.outputs import RequestOutput
from vllm.sampling_params import SamplingParams

__all__ = ["AnswerStops"]


@dataclass(slots=True)
class AnswerStops:
    """Takes the answer's text token by token; what may become a stop string is held back."""

    params: SamplingParams
    longest: int = field(init=False)
    tail: str = field(default="", init=False)
    """The last characters of the answer, in which a stop string may have begun."""

    def __post_init__(self) -> None:
        self.longest = max(len(each) for each in self.params.stop)

    def take(self, output: RequestOutput, generated: int) -> RequestOutput:
        """The delta of one token, the `generated`-th of its stream, with the text that is due; its
        end, if a stop string is complete."""
        before, text = self.tail, self.tail + output.outputs[0].text
        found = self._found(text, len(before)) if generated > self.params.min_tokens else None
        self.tail = text[-(self.longest - 1) :] if self.longest > 1 else ""
        if found is not None:
            string, end = found
            return self._delta(output, text[:end], before, stopped=string)
        if output.outputs[0].finish_reason is not None:
            return self._delta(output, text, before)
        due = text if self.params.include_stop_str_in_output else text[: len(text) - len(self.tail)]
        return self._delta(output, due, before)

    def _found(self, text: str, searched: int) -> tuple[str, int] | None:
        """The stop string that is complete first, and where the text ends with it."""
        ends = [
            (start + len(stop), number)
            for number, stop in enumerate(self.params.stop)
            if (start := text.find(stop, max(searched - len(stop) + 1, 0))) >= 0
        ]
        if not ends:
            return None
        end, number = min(ends)
        stop = self.params.stop[number]
        return stop, end if self.params.include_stop_str_in_output else end - len(stop)

    def _delta(
        self, output: RequestOutput, text: str, before: str, stopped: str | None = None
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
