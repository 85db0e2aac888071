"""Renders one line of the request log as text: the timeline of a sequence and its savings."""

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["explain_line", "printable"]

Line = Mapping[str, Any]


def explain_line(line: Line) -> str:
    """Return a section of text. Raises KeyError, TypeError or ValueError for anything that is not a
    line of a request log."""
    rows = sorted(_rows(line), key=lambda row: row[0])  # stable for equal times
    return "\n".join(
        [
            *_head(line),
            "",
            *(f"{at:10.3f} s  {text}" for at, text in rows),
            "",
            *_foot(line),
        ]
    )


def _head(line: Line) -> Iterator[str]:
    label = "" if line["label"] == line["policy"] else f" (counted as {printable(line['label'])})"
    yield f"{printable(line['id'])}, sequence {line['index']}"
    policy = f"policy {printable(line['policy'])}{label}"
    yield f"{printable(line['model'])}, {policy}, ended {line['time']}"
    if line["abstained"]:
        yield f"The policy did not act, or not all of it: {printable(line['abstained'])}."


def _rows(line: Line) -> Iterator[tuple[float, str]]:
    for event in line["timeline"]:
        yield from _TEXTS.get(event["event"], _unknown)(event, line)


def _unknown(event: Line, _: Line) -> Iterator[tuple[float, str]]:
    yield event["at"], printable(event["event"])


def _arrived(event: Line, line: Line) -> Iterator[tuple[float, str]]:
    queue = line["seconds"]["queue"]
    queued = "" if queue is None else f"; {queue:.3f} s in the engine's queue"
    yield event["at"], f"arrived: {event['prompt_tokens']} prompt tokens{queued}"


def _first_token(event: Line, _: Line) -> Iterator[tuple[float, str]]:
    yield event["at"], "first token"


def _probe(event: Line, _: Line) -> Iterator[tuple[float, str]]:
    name = f"probe {event['probe']}"
    place = ""
    if "policy" in event:
        place = (
            f" by {printable(event['policy'])} after {event['reasoning_tokens']} reasoning tokens"
        )
        place += f", step {event['steps']}"
    result = printable(event["result"])
    if event.get("confidence") is not None:
        result += f", confidence {event['confidence']}"
    if event["result"] == "refused":
        yield event["at"], f"{name} refused{place}: {printable(event['cause'])}"
        return
    yield event["at"], f"{name} asked{place}"
    answered = event["answered"]
    if answered is None:
        yield event["at"], f"{name} never answered: {result}"
    else:
        yield answered, f"{name} answered: {result}"


def _cut(event: Line, _: Line) -> Iterator[tuple[float, str]]:
    dropped = f"{event['discarded_tokens']} tokens past it dropped"
    yield event["at"], f"thinking cut ({_kept(event)}): {printable(event['reason'])}; {dropped}"


def _thinking_end(event: Line, _: Line) -> Iterator[tuple[float, str]]:
    yield event["at"], f"thinking ended ({_kept(event)}): {printable(event['reason'])}"


def _kept(event: Line) -> str:
    return f"{event['reasoning_tokens']} reasoning tokens"


def _closing(event: Line, _: Line) -> Iterator[tuple[float, str]]:
    yield event["at"], f"closing injected: {event['injected_tokens']} tokens; answer asked for"


def _answer(event: Line, _: Line) -> Iterator[tuple[float, str]]:
    yield event["at"], "first token of the answer"


def _end(event: Line, line: Line) -> Iterator[tuple[float, str]]:
    finish = "" if line["finish_reason"] is None else f", {printable(line['finish_reason'])}"
    tokens = f"{line['completion_tokens']} tokens delivered"
    yield event["at"], f"{printable(event['outcome'])}{finish}: {tokens}"


_TEXTS = {
    "arrived": _arrived,
    "first_token": _first_token,
    "probe": _probe,
    "cut": _cut,
    "thinking_end": _thinking_end,
    "closing": _closing,
    "answer": _answer,
    "end": _end,
}


def _foot(line: Line) -> Iterator[str]:
    reason, steps = line["exit_reason"], line["steps"]
    if reason is not None:
        length = f"{line['reasoning_tokens']} tokens, {steps} steps"
        yield f"Thinking: {length}; exit reason: {printable(reason)}."
    if line["shadow_reason"]:
        yield f"In shadow mode; the policy would have exited: {printable(line['shadow_reason'])}."
    cost = f"{line['probe_tokens']} probe and {line['discarded_tokens']} discarded tokens"
    yield f"Cost: {line['probes']} probes; {cost}."
    saved = line["saved"]
    if saved is None:
        yield "Saved: no estimate."
    else:
        band = f"({saved['low']} to {saved['high']}), net of probes {saved['net']}"
        yield f"Saved: {saved['tokens']} tokens {band}; method: {printable(saved['method'])}."
    if "text" in line:
        yield f"Text: {len(line['text'])} characters in the log; --format json shows them."


def printable(value: object) -> str:
    """Escape control characters, so that a name cannot move the cursor or start a line."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(value))
