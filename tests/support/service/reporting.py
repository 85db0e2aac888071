"""The middleware around an application that sends given parts."""

import asyncio
from typing import Any

from service.http.responses import ResponseReporter
from service.records.sequence import RequestContext, SequenceRecord, current_request
from stepgrpo_core import ExitReason, Outcome

RECORD = SequenceRecord(0, "m", "confidence", 5, settings={"threshold": 0.9}, probe_tokens=7)
RECORD.cut_at, RECORD.injected_tokens, RECORD.discarded_tokens = 31, 4, 9
RECORD.outcome = Outcome(ExitReason.CONFIDENT, 2, 30, 1, 0, (0.98765,), None)
BLOCK = {
    "policy": "confidence",
    "settings": {"threshold": 0.9},
    "exit_reason": "confident",
    "steps": 2,
    "reasoning_tokens": 30,
    "probes": 1,
    "probe_tokens": 7,
    "cut_at": 31,
    "injected_tokens": 4,
    "discarded_tokens": 9,
    "confidence": 0.9877,
    "saved": None,
}
"""The block as in a response."""


def serve(
    parts: list[bytes],
    kind: bytes,
    *,
    records: tuple[SequenceRecord, ...] = (RECORD,),
    request: tuple[bytes, ...] = (b"{}",),
    path: str = "/v1/chat/completions",
) -> tuple[list[bytes], dict[bytes, bytes], RequestContext | None]:
    """Run a fake application that sends `parts`; return what came out, and its context."""
    seen: list[RequestContext | None] = []
    sent: list[Any] = []
    incoming = [
        {"type": "http.request", "body": b, "more_body": i < len(request) - 1}
        for i, b in enumerate(request)
    ]

    async def app(_: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        context = current_request.get()
        seen.append(context)
        if context:
            context.sequences += records
        headers = [(b"content-type", kind), (b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for part in parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def receive() -> Any:
        return incoming.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path}
    asyncio.run(ResponseReporter(app)(scope, receive, send))
    assert current_request.get() is None
    return [m["body"] for m in sent[1:]], dict(sent[0]["headers"]), seen[0]
