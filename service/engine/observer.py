"""Times requests, and reports them to the request log and to traces."""

import dataclasses
import logging
from collections import deque
from collections.abc import Sequence
from typing import Any

from vllm.sampling_params import RequestOutputKind

from service.engine.request import EngineRequest
from service.records.log_line import logged_id, response_id, to_log_line
from service.records.log_writer import RequestLog
from service.records.sequence import SequenceRecord
from service.records.timeline import Start, Timeline
from service.records.tracing import SequenceSpans, Tracing
from service.streams.streamed_timeline import StreamedTimeline

__all__ = ["RequestObserver"]

_log = logging.getLogger("vllm.stepgrpo")


class RequestObserver:
    """Observes requests while they run, and reports them when they have ended."""

    def __init__(
        self,
        log: RequestLog | None = None,
        tracing: Tracing | None = None,
        *,
        with_text: bool = False,
    ) -> None:
        self._log = log
        self._tracing = tracing
        self._with_text = with_text and log is not None

    def begin(
        self,
        request: EngineRequest,
        records: Sequence[SequenceRecord],
        arrived: float,
        *,
        batch: bool = False,
        events: list[dict[str, Any]] | None = None,
        markers: Sequence[str] = (),
    ) -> EngineRequest:
        """Follow the sequences of a request that arrived at `arrived` (``time.monotonic``).

        Return the request with its trace headers. In a `batch`, sequences are named by the id of
        the response. The events of their timelines, with steps at `markers`, go to `events`, if
        the client asked for them.
        """
        start, spans = Start.at(arrived), None
        if self._tracing is not None:
            spans = self._tracing.request(start, request.options.get("trace_headers"))
            request = dataclasses.replace(request, options={**request.options, **spans.options})
        last_only = request.params.output_kind is RequestOutputKind.CUMULATIVE
        name = response_id(request.request_id, batch=True) if batch else request.request_id
        for record in records:
            options: dict[str, Any] = {
                "texts": deque(maxlen=1 if last_only else None) if self._with_text else None,
                "spans": spans.sequence() if spans else None,
            }
            if events is None:
                record.timeline = Timeline(name, start, **options)
            else:
                options |= {"index": record.choice, "events": events, "markers": markers}
                record.timeline = StreamedTimeline(name, start, **options)
        return request

    def end(self, records: Sequence[SequenceRecord]) -> None:
        """Report the sequences of a request, all of which have ended."""
        for record in records:
            record.timeline.finish()
            self._report(record, record.timeline)

    def _report(self, record: SequenceRecord, timeline: Timeline) -> None:
        try:
            if self._log is not None:
                self._log.write(to_log_line(record, timeline))
            if isinstance(timeline.spans, SequenceSpans):
                timeline.spans.end(record, timeline)
        except Exception as error:  # noqa: BLE001 - a failed report must not fail its request
            name = type(error).__name__
            _log.error("Request %r cannot be reported: %s", logged_id(timeline.request_id), name)

    def close(self) -> None:
        """Write the pending lines of the request log."""
        if self._log is not None:
            self._log.close()
