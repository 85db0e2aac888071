"""Admission: a request is admitted or refused once, and always releases its slots."""

import asyncio
from collections.abc import MutableMapping
from types import SimpleNamespace
from typing import Any

import pytest
from vllm.exceptions import MaxQueuedTokensError, QueueOverflowError, VLLMValidationError

from service.access.keys import KeyRing
from service.access.limits import KeyLimits
from service.access.middleware import Access, Rules
from service.load.admission import Admission
from service.records.sequence import RequestContext
from tests.support.service.access import admission


def started() -> tuple[Admission, RequestContext]:
    """The only slot, taken by a sequence that has started."""
    slots, context = admission(1), RequestContext()
    slots.admit(1, context)
    slots.claim(1, context)
    slots.start(1, context)
    return slots, context


def test_the_limit_is_exact_although_no_sequence_has_started() -> None:
    slots = admission(2)
    contexts = [RequestContext() for _ in range(3)]
    slots.admit(1, contexts[0])
    slots.admit(1, contexts[1])
    with pytest.raises(QueueOverflowError):
        slots.admit(1, contexts[2])
    contexts[0].end()
    slots.admit(1, contexts[2])
    assert slots.in_use == 2


def test_a_started_sequence_keeps_its_slot_beyond_its_response() -> None:
    slots, context = started()
    context.end()
    assert slots.in_use == 1
    slots.end(1)
    assert slots.in_use == 0


def test_a_request_of_several_prompts_is_let_in_whole_or_not_at_all() -> None:
    slots, context = admission(4), RequestContext()
    slots.admit(2, context)  # vLLM asks for one prompt
    slots.claim(2, context)
    slots.claim(2, context)
    assert slots.in_use == 4
    with pytest.raises(VLLMValidationError, match=r"6 sequences.*4 at once"):
        slots.claim(2, context)
    context.end()
    assert slots.in_use == 0


def test_what_a_running_request_needs_is_never_refused() -> None:
    slots, context = started()
    slots.closed = True
    slots.claim(1, context)
    slots.start(1, context)
    slots.end(1)
    slots.end(1)
    context.end()
    assert slots.in_use == 0


def test_a_sequence_that_starts_after_its_response_is_counted() -> None:
    """A background response: its HTTP request ends before its sequence starts."""
    slots, context = admission(1), RequestContext()
    slots.admit(1, context)
    context.end()
    assert slots.in_use == 0
    slots.start(1, context)
    assert slots.in_use == 1
    slots.end(1)
    assert slots.in_use == 0


def test_more_sequences_than_there_are_slots_is_a_mistake_and_not_overload() -> None:
    slots = admission(8)
    with pytest.raises(VLLMValidationError, match=r"9 sequences.*8 at once.*--max-num-queued-reqs"):
        slots.admit(9, RequestContext())
    slots.admit(8, RequestContext())


def test_a_closed_door_and_queued_tokens_refuse() -> None:
    with pytest.raises(MaxQueuedTokensError):
        admission(None, tokens=100, queued=100).admit(1, None)
    admission(None, tokens=100, queued=99).admit(1, None)
    slots = admission(None)
    slots.closed = True
    with pytest.raises(QueueOverflowError):
        slots.admit(1, None)


def test_outside_of_http_nothing_is_kept() -> None:
    slots = admission(1)
    slots.admit(1, None)
    assert slots.in_use == 0


def test_slots_are_kept_for_a_request_that_is_being_read() -> None:
    slots, context = admission(3), RequestContext()
    with slots.reserve(2) as limited:
        assert limited
        assert isinstance(slots.refusal(2), QueueOverflowError)
        assert slots.refusal(1) is None
        slots.admit(2, context)  # the reservation of the request itself does not count
        assert (slots.in_use, slots.reserved) == (2, 0)
        with slots.reserve(1):
            pass  # refused as invalid
        assert slots.reserved == 0
    context.end()
    with slots.reserve(9), slots.reserve(9):  # larger than the limit: refused at admission
        assert slots.refusal(3) is None
    assert (slots.in_use, slots.reserved) == (0, 0)


def test_without_a_limit_nothing_is_kept() -> None:
    slots = admission(None)
    with slots.reserve(5) as limited:
        assert not limited  # nothing will be refused, so there is no need to yield
        assert slots.reserved == 0
        assert slots.refusal(5) is None


def test_of_a_crowd_those_without_a_slot_are_refused_before_any_is_read() -> None:
    slots, order = admission(2), []

    async def reads(*_: Any) -> None:
        order.append("read")
        slots.admit(1, RequestContext())

    guard = Access(reads)
    rules = Rules(KeyRing(()), KeyLimits(), max_body=100)
    state = SimpleNamespace(engine_client=slots, args=SimpleNamespace(access=rules))
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
    assert (slots.in_use, slots.reserved) == (2, 0)
