"""Warns if long thinking contains none of the step markers."""

import logging

from service.records.sequence import SequenceRecord

__all__ = ["UnmarkedThoughts"]

PER_LINE = 100  # sequences per log line

_log = logging.getLogger("vllm.stepgrpo")  # below vLLM's logger, so its format and level apply


class UnmarkedThoughts:
    """Counts such sequences; logs the first one and then every hundredth."""

    def __init__(self, markers: tuple[str, ...]) -> None:
        self._first = markers[0]
        self._count = 0

    def ended(self, record: SequenceRecord) -> None:
        """Count a sequence that has ended."""
        self._count += record.lacks_markers
        if record.lacks_markers and self._count % PER_LINE == 1:
            words = "%d long thoughts held none of the step markers (%s, ...): see --exit-markers."
            _log.warning(words, self._count, self._first)
