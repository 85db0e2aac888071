"""A line of the request log: cost, savings and timeline of one finished sequence.

It contains no text of clients or models, except the request id, which clients may choose, and the
completion if ``--exit-log-text`` is set.
"""

import dataclasses
import datetime
import re
from collections.abc import Mapping
from typing import Any

from service.records.sequence import SequenceRecord
from service.records.timeline import Moment, ProbeTimes, Timeline
from stepgrpo_core import ExitReason
from stepgrpo_core.control.policy_slots import PendingDecision
from stepgrpo_core.policies import POLICIES

__all__ = ["MAX_ID", "logged_id", "probe_event", "probe_result", "response_id", "to_log_line"]

MAX_ID = 512  # characters; clients may choose the id in a header
_NUMBERED = re.compile(r"(cmpl-.+)-\d+|((?!chatcmpl-).+)_\d+", re.DOTALL)


def to_log_line(record: SequenceRecord, timeline: Timeline) -> dict[str, Any]:
    """Return the log line of a sequence, ready for JSON."""
    assert timeline.ended is not None
    line = {
        "time": iso_time(timeline.start.wall_at(timeline.ended)),
        "id": logged_id(timeline.request_id),
        "index": record.choice,
        "model": record.model_name,
        "policy": record.policy,
        "label": record.label,
        **_ending(record),
        **_costs(record),
        "saved": None if record.saved is None else dataclasses.asdict(record.saved),
        "seconds": durations(record, timeline),
        "timeline": timeline_events(record, timeline),
    }
    if timeline.texts is not None:
        line["text"] = "".join(timeline.texts)
    return line


def response_id(request_id: str, *, batch: bool = False) -> str:
    """Return the id in the response to an engine request.

    vLLM appends a number to it: ``cmpl-ID-0``, ``resp_ID_0``, and in a chat `batch`
    ``chatcmpl-ID_0``. Other ids of chats may end in a number that their client chose.
    """
    if batch:
        return request_id.rpartition("_")[0]
    found = _NUMBERED.fullmatch(request_id)
    return (found[1] or found[2]) if found else request_id


def logged_id(request_id: str) -> str:
    """Return the id in the response, in at most `MAX_ID` characters."""
    return response_id(request_id)[:MAX_ID]


def iso_time(wall: int) -> str:
    """Format nanoseconds since 1970 as ISO 8601 in UTC, to the millisecond."""
    moment = datetime.datetime.fromtimestamp(wall / 1e9, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _ending(record: SequenceRecord) -> dict[str, Any]:
    outcome = record.outcome
    shadow = outcome.shadow_reason if outcome else None
    return {
        "exit_reason": str(outcome.reason) if outcome else None,
        "shadow_reason": str(shadow) if shadow else None,
        "abstained": str(record.abstained) if record.abstained else None,
        "outcome": record.status,
        "finish_reason": record.finish_reason,
    }


def _costs(record: SequenceRecord) -> dict[str, Any]:
    outcome = record.outcome
    confidence = outcome.confidence if outcome else None
    return {
        "steps": outcome.steps if outcome else None,
        "prompt_tokens": record.prompt_tokens,
        "reasoning_tokens": outcome.reasoning_tokens if outcome else None,
        "completion_tokens": record.delivered_tokens,
        "injected_tokens": record.injected_tokens,
        "discarded_tokens": record.discarded_tokens,
        "aborted_tokens": record.aborted_tokens,
        "probe_tokens": record.probe_tokens,
        "judge_tokens": record.judge_tokens,
        "probes": outcome.probes if outcome else 0,
        "refused_probes": record.refused_probes.total(),
        "failed_probes": outcome.failed_probes if outcome else 0,
        "confidence": _rounded(confidence, 4),
    }


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def durations(record: SequenceRecord, timeline: Timeline) -> dict[str, float | None]:
    """Return durations in seconds; None for phases that did not occur or cannot be measured."""
    begin, first, end = timeline.start.moment, timeline.first_token, timeline.ended
    thought, answer = _thinking_end_and_answer_start(record, timeline)
    return {
        "queue": _queued(timeline.stats),
        "first_token": _between(begin, first),
        "thinking": _between(first, thought),
        "first_answer_token": _between(begin, _first_answer_token(record, timeline)),
        "answer": _between(answer, end),
        "total": _between(begin, end),
    }


def _thinking_end_and_answer_start(
    record: SequenceRecord, timeline: Timeline
) -> tuple[Moment | None, Moment | None]:
    """Return when the thinking ended and when the answer started."""
    outcome, thought = record.outcome, timeline.thought
    if thought is not None:
        return thought, thought
    if outcome is None or not outcome.reasoning_tokens:
        return None, timeline.first_token
    if outcome.reason is ExitReason.NATURAL:  # the output came in one piece
        return None, None
    return timeline.ended, None


def _first_answer_token(record: SequenceRecord, timeline: Timeline) -> Moment | None:
    thinks = record.outcome is not None and record.outcome.reasoning_tokens
    return timeline.answer if thinks else timeline.first_token


def _between(begin: Moment | None, end: Moment | None) -> float | None:
    return None if begin is None or end is None else round(end - begin, 6)


def _queued(stats: Any) -> float | None:
    """Return the seconds in vLLM's queue, by the engine's own monotonic clock."""
    if stats is None or not stats.scheduled_ts:
        return None
    return _between(stats.queued_ts, stats.scheduled_ts)


def timeline_events(record: SequenceRecord, timeline: Timeline) -> list[dict[str, Any]]:
    """Return the timeline. `at` and `answered` are seconds since the request arrived."""
    outcome, reason = record.outcome, str(record.outcome.reason) if record.outcome else None
    thought = {"reason": reason, "reasoning_tokens": outcome.reasoning_tokens if outcome else None}
    answer = timeline.answer
    if answer is None and timeline.cut is None and record.status == "completed":
        answer = timeline.thought  # the answer follows the thinking directly
    cut = {"discarded_tokens": record.discarded_tokens}
    found = [
        _event(timeline, timeline.start.moment, "arrived", prompt_tokens=record.prompt_tokens),
        _event(timeline, timeline.first_token, "first_token"),
        *(probe_event(timeline, number) for number in range(len(timeline.probes))),
        _event(timeline, timeline.cut, "cut", **thought, **cut)
        if timeline.cut
        else _event(timeline, timeline.thought, "thinking_end", **thought),
        _event(timeline, timeline.closed, "closing", injected_tokens=record.injected_tokens),
        _event(timeline, answer, "answer"),
        _event(timeline, timeline.ended, "end", outcome=record.status),
    ]
    return sorted((event for event in found if event["at"] is not None), key=lambda e: e["at"])


def _event(timeline: Timeline, moment: Moment | None, name: str, **more: Any) -> dict[str, Any]:
    return {"at": timeline.since_start(moment), "event": name, **more}


def probe_event(timeline: Timeline, number: int) -> dict[str, Any]:
    """Return the event of one probe."""
    times = timeline.probes[number]
    asked = timeline.asked[number] if number < len(timeline.asked) else None
    event = _event(timeline, times.asked, "probe", probe=number)
    event["answered"] = timeline.since_start(times.answered)
    if asked is not None:
        event["policy"] = _policy_name(asked.slot.policy)
        event["reasoning_tokens"] = asked.boundary.reasoning_tokens
        event["steps"] = asked.boundary.steps
    event["result"] = probe_result(times, asked)
    if asked is not None and asked.verdict is not None:
        event["confidence"] = _rounded(asked.verdict.confidence, 4)
    if times.refused is not None:
        event["cause"] = str(times.refused)
    return event


def probe_result(times: ProbeTimes, asked: PendingDecision | None) -> str:
    """Return the result of a probe, from a closed set."""
    if times.refused is not None:
        return "refused"
    if asked is not None and asked.verdict is not None:
        return "declined" if asked.verdict.reason is None else "fired"
    if asked is not None and asked.answered and asked.answer is None:
        return "failed"
    return "unused"  # decided before it, or the client disconnected


def _policy_name(policy: object) -> str:
    names: Mapping[Any, str] = {made: name for name, made in POLICIES.items()}
    return names.get(type(policy), type(policy).__name__)
