"""Admission: every request is let in or refused once, and its seats come back however it ends."""

import asyncio
from collections.abc import MutableMapping
from types import SimpleNamespace
from typing import Any

import pytest
from vllm.exceptions import MaxQueuedTokensError, QueueOverflowError, VLLMValidationError

from service.access.keys import KeyRing
from service.access.limits import KeyLimits
from service.access.middleware import Access, Rules
from service.records.sequence import RequestContext
from tests.support.service.access import admission


def test_the_limit_is_exact_although_no_sequence_has_started() -> None:
    seats = admission(2)
    contexts = [RequestContext() for _ in range(3)]
    seats.ask(1, contexts[0])
    seats.ask(1, contexts[1])
    with pytest.raises(QueueOverflowError):
        seats.ask(1, contexts[2])
    contexts[0].end()
    seats.ask(1, contexts[2])
    assert seats.taken == 2


def test_a_started_sequence_keeps_its_seat_beyond_its_response() -> None:
    seats, context = admission(1), RequestContext()
    seats.ask(1, context)
    seats.claim(1, context)
    seats.start(1, context)
    context.end()
    assert seats.taken == 1
    seats.end(1)
    assert seats.taken == 0


def test_a_request_of_several_prompts_is_let_in_whole_or_not_at_all() -> None:
    seats, context = admission(4), RequestContext()
    seats.ask(2, context)  # vLLM asks for one prompt
    seats.claim(2, context)
    seats.claim(2, context)
    assert seats.taken == 4
    with pytest.raises(VLLMValidationError, match=r"6 sequences.*4 at once"):
        seats.claim(2, context)
    context.end()
    assert seats.taken == 0


def test_what_a_running_request_needs_is_never_refused() -> None:
    seats, context = admission(1), RequestContext()
    seats.ask(1, context)
    seats.claim(1, context)
    seats.start(1, context)
    seats.closed = True
    seats.claim(1, context)
    seats.start(1, context)
    seats.end(1)
    seats.end(1)
    context.end()
    assert seats.taken == 0


def test_a_sequence_that_starts_after_its_response_is_counted() -> None:
    """A response in the background: the client has gone with its id."""
    seats, context = admission(1), RequestContext()
    seats.ask(1, context)
    context.end()
    assert seats.taken == 0
    seats.start(1, context)
    assert seats.taken == 1
    seats.end(1)
    assert seats.taken == 0


def test_more_sequences_than_there_are_seats_is_a_mistake_and_not_overload() -> None:
    seats = admission(8)
    with pytest.raises(VLLMValidationError, match=r"9 sequences.*8 at once.*--max-num-queued-reqs"):
        seats.ask(9, RequestContext())
    seats.ask(8, RequestContext())


def test_a_closed_door_and_queued_tokens_refuse() -> None:
    with pytest.raises(MaxQueuedTokensError):
        admission(None, tokens=100, queued=100).ask(1, None)
    admission(None, tokens=100, queued=99).ask(1, None)
    seats = admission(None)
    seats.closed = True
    with pytest.raises(QueueOverflowError):
        seats.ask(1, None)


def test_outside_of_http_nothing_is_kept() -> None:
    seats = admission(1)
    seats.ask(1, None)
    assert seats.taken == 0


def test_seats_are_kept_for_a_request_that_is_being_read() -> None:
    seats, context = admission(3), RequestContext()
    with seats.expect(2) as limited:
        assert limited
        assert isinstance(seats.refusal(2), QueueOverflowError)
        assert seats.refusal(1) is None
        seats.ask(2, context)  # its own are not in its way
        assert (seats.taken, seats.coming) == (2, 0)
        with seats.expect(1):
            pass  # it was refused for what it says
        assert seats.coming == 0
    context.end()
    with seats.expect(9), seats.expect(9):  # more than there will ever be: told so when they ask
        assert seats.refusal(3) is None
    assert (seats.taken, seats.coming) == (0, 0)


def test_without_a_limit_nothing_is_kept() -> None:
    seats = admission(None)
    with seats.expect(5) as limited:
        assert not limited  # so nobody will be refused, and none need wait for it
        assert seats.coming == 0
        assert seats.refusal(5) is None


def test_of_a_crowd_those_without_a_seat_are_refused_before_any_is_read() -> None:
    seats, order = admission(2), []

    async def reads(*_: Any) -> None:
        order.append("read")
        seats.ask(1, RequestContext())

    guard = Access(reads)
    rules = Rules(KeyRing(()), KeyLimits(), max_body=100)
    state = SimpleNamespace(engine_client=seats, args=SimpleNamespace(access=rules))
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/chat/completions",
        "headers": [],
        "app": SimpleNamespace(state=state),
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"{}"}

    async def send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            order.append(message["status"])

    async def crowd() -> None:
        await asyncio.gather(*(guard(scope, receive, send) for _ in range(5)))

    asyncio.run(crowd())
    assert order == [503, 503, 503, "read", "read"]
    assert (seats.taken, seats.coming) == (2, 0)
