"""A line of the request log: what one sequence that has ended cost and saved, and its timeline.

There is nothing in it that a client wrote or a model said, but the request's id, which may be a
client's, and with ``--exit-log-text`` the completion.
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

__all__ = ["MAX_ID", "id_of", "line_of", "probe_of", "result_of"]

MAX_ID = 512  # characters: clients may choose it, and headers can be long
_NUMBERED = re.compile(r"(cmpl-.+)-\d+|((?!chatcmpl-).+)_\d+", re.DOTALL)


def line_of(record: SequenceRecord, timeline: Timeline) -> dict[str, Any]:
    """What the log says of a sequence, as JSON has it."""
    assert timeline.ended is not None
    line = {
        "time": iso(timeline.start.wall_at(timeline.ended)),
        "id": id_of(timeline.request_id),
        "index": record.choice,
        "model": record.model_name,
        "policy": record.policy,
        "label": record.label,
        **_end_of(record),
        **_costs_of(record),
        "saved": None if record.saved is None else dataclasses.asdict(record.saved),
        "seconds": seconds_of(record, timeline),
        "timeline": events_of(record, timeline),
    }
    if timeline.texts is not None:
        line["text"] = "".join(timeline.texts)
    return line


def id_of(request_id: str) -> str:
    """The id in the response. vLLM numbers the engine's requests of one HTTP request."""
    found = _NUMBERED.fullmatch(request_id)
    return ((found[1] or found[2]) if found else request_id)[:MAX_ID]


def iso(wall: int) -> str:
    """Nanoseconds since 1970 in UTC, to the millisecond."""
    moment = datetime.datetime.fromtimestamp(wall / 1e9, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _end_of(record: SequenceRecord) -> dict[str, Any]:
    outcome = record.outcome
    shadow = outcome.shadow_reason if outcome else None
    return {
        "exit_reason": str(outcome.reason) if outcome else None,
        "shadow_reason": str(shadow) if shadow else None,
        "abstained": str(record.abstained) if record.abstained else None,
        "outcome": record.status,
        "finish_reason": record.finish_reason,
    }


def _costs_of(record: SequenceRecord) -> dict[str, Any]:
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


def seconds_of(record: SequenceRecord, timeline: Timeline) -> dict[str, float | None]:
    """How long it took; None for what did not come or cannot be told."""
    begin, first, end = timeline.start.moment, timeline.first_token, timeline.ended
    thought, answer = _ends_of_thinking(record, timeline)
    return {
        "queue": _queued(timeline.stats),
        "first_token": _between(begin, first),
        "thinking": _between(first, thought),
        "answer": _between(answer, end),
        "total": _between(begin, end),
    }


def _ends_of_thinking(
    record: SequenceRecord, timeline: Timeline
) -> tuple[Moment | None, Moment | None]:
    """When the thinking ended, and from when on the answer was under way."""
    outcome, thought = record.outcome, timeline.thought
    if thought is not None:
        return thought, thought
    if outcome is None or not outcome.reasoning_tokens:
        return None, timeline.first_token
    if outcome.reason is ExitReason.NATURAL:  # it came as a whole, and nobody saw when
        return None, None
    return timeline.ended, None


def _between(begin: Moment | None, end: Moment | None) -> float | None:
    return None if begin is None or end is None else round(end - begin, 6)


def _queued(stats: Any) -> float | None:
    """In vLLM's queue, by the engine's own monotonic clock."""
    if stats is None or not stats.scheduled_ts:
        return None
    return _between(stats.queued_ts, stats.scheduled_ts)


def events_of(record: SequenceRecord, timeline: Timeline) -> list[dict[str, Any]]:
    """The timeline: `at` and `answered` are seconds since the request came."""
    outcome, reason = record.outcome, str(record.outcome.reason) if record.outcome else None
    thought = {"reason": reason, "reasoning_tokens": outcome.reasoning_tokens if outcome else None}
    answer = timeline.answer
    if answer is None and timeline.cut is None and record.status == "completed":
        answer = timeline.thought  # its first token came with the end of the thinking
    cut = {"discarded_tokens": record.discarded_tokens}
    found = [
        _event(timeline, timeline.start.moment, "arrived", prompt_tokens=record.prompt_tokens),
        _event(timeline, timeline.first_token, "first_token"),
        *(probe_of(timeline, number) for number in range(len(timeline.probes))),
        _event(timeline, timeline.cut, "cut", **thought, **cut)
        if timeline.cut
        else _event(timeline, timeline.thought, "thinking_end", **thought),
        _event(timeline, timeline.closed, "closing", injected_tokens=record.injected_tokens),
        _event(timeline, answer, "answer"),
        _event(timeline, timeline.ended, "end", outcome=record.status),
    ]
    return sorted((event for event in found if event["at"] is not None), key=lambda e: e["at"])


def _event(timeline: Timeline, moment: Moment | None, name: str, **more: Any) -> dict[str, Any]:
    return {"at": _between(timeline.start.moment, moment), "event": name, **more}


def probe_of(timeline: Timeline, number: int) -> dict[str, Any]:
    """The event of a probe."""
    times = timeline.probes[number]
    asked = timeline.asked[number] if number < len(timeline.asked) else None
    event = _event(timeline, times.asked, "probe", probe=number)
    event["answered"] = _between(timeline.start.moment, times.answered)
    if asked is not None:
        event["policy"] = _name_of(asked.slot.policy)
        event["reasoning_tokens"] = asked.boundary.reasoning_tokens
        event["steps"] = asked.boundary.steps
    event["result"] = result_of(times, asked)
    if asked is not None and asked.verdict is not None:
        event["confidence"] = _rounded(asked.verdict.confidence, 4)
    if times.refused is not None:
        event["cause"] = str(times.refused)
    return event


def result_of(times: ProbeTimes, asked: PendingDecision | None) -> str:
    """What became of a question: a closed set."""
    if times.refused is not None:
        return "refused"
    if asked is not None and asked.verdict is not None:
        return "declined" if asked.verdict.reason is None else "fired"
    if asked is not None and asked.answered and asked.answer is None:
        return "failed"
    return "unused"  # something before it had decided, or the client had left


def _name_of(policy: object) -> str:
    names: Mapping[Any, str] = {made: name for name, made in POLICIES.items()}
    return names.get(type(policy), type(policy).__name__)
