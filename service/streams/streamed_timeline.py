"""Timeline whose events the client gets in its stream, as they happen (``exit_events``)."""

from collections.abc import Sequence
from typing import Any

from service.records.log_line import probe_event
from service.records.reasons import Refusal
from service.records.timeline import Start, Timeline
from stepgrpo_core import ExitController, StepSegmenter

__all__ = ["StreamedTimeline"]


class StreamedTimeline(Timeline):
    """Timeline of one sequence that also appends its events to `events`.

    `index` is the choice of the sequence in the response, `markers` are those of its steps. Whoever
    sends the stream's chunks takes the events from the list.
    """

    def __init__(
        self,
        request_id: str,
        start: Start,
        *,
        index: int,
        events: list[dict[str, Any]],
        markers: Sequence[str],
        **options: Any,
    ) -> None:
        super().__init__(request_id, start, **options)
        self._index, self._events = index, events
        self._segmenter = StepSegmenter(markers)
        self._steps = 1
        self._told: set[int] = set()  # probes whose result was sent
        self._controller: ExitController | None = None

    def delivered(self, text: str) -> None:
        """Append an event for each step that begins in the delivered text of the thinking."""
        super().delivered(text)
        if not self.thinking:
            return
        for marker in self._segmenter.feed(text):
            self._steps += 1
            self._tell(event="step", steps=self._steps, marker=marker.text)

    def observe(self, controller: ExitController) -> None:
        """Append events for the probes that have a result, and for a natural end."""
        super().observe(controller)
        self._controller, self.asked = controller, controller.asked
        for number in range(len(self.probes)):
            if number not in self._told:
                self._tell_probe(number)
        if self.thought is not None:
            self._tell(event="thinking_end", at=self.since_start(self.thought), reason="natural")

    def truncated(self) -> None:
        """Append an event for the exit."""
        super().truncated()
        assert self._controller is not None
        assert self.cut is not None
        reason = str(self._controller.reason)
        self._tell(event="cut", at=self.since_start(self.cut), reason=reason)

    def probe_refused(self, number: int, refusal: Refusal) -> None:
        """Append an event for a probe that was not sent."""
        super().probe_refused(number, refusal)
        self._tell_probe(number)

    def _tell_probe(self, number: int) -> None:
        """Append the event of a probe unless it has no result yet, or never will."""
        if number < len(self.probes):
            event = probe_event(self, number)
            if event["result"] != "unused":
                self._told.add(number)
                self._tell(**event)

    def _tell(self, **event: Any) -> None:
        self._events.append({"index": self._index, **event})
