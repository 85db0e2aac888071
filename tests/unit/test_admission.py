"""Admission: every request is let in or refused once, and its seats come back however it ends."""

from types import SimpleNamespace

import pytest
from vllm.exceptions import MaxQueuedTokensError, QueueOverflowError, VLLMValidationError

from service.admission import Admission
from service.ledger import RequestLedger


def admission(limit: int | None, tokens: int | None = None, queued: int = 0) -> Admission:
    scheduler = SimpleNamespace(max_num_queued_reqs=limit, max_num_queued_tokens=tokens)
    engine = SimpleNamespace(
        vllm_config=SimpleNamespace(scheduler_config=scheduler),
        get_num_queued_tokens=lambda: queued,
    )
    made = Admission(engine)
    assert (scheduler.max_num_queued_reqs, scheduler.max_num_queued_tokens) == (None, None)
    return made


def test_the_limit_is_exact_although_no_sequence_has_started() -> None:
    seats = admission(2)
    ledgers = [RequestLedger() for _ in range(3)]
    seats.ask(1, ledgers[0])
    seats.ask(1, ledgers[1])
    with pytest.raises(QueueOverflowError):
        seats.ask(1, ledgers[2])
    ledgers[0].end()
    seats.ask(1, ledgers[2])
    assert seats.taken == 2


def test_a_started_sequence_keeps_its_seat_beyond_its_response() -> None:
    seats, ledger = admission(1), RequestLedger()
    seats.ask(1, ledger)
    seats.claim(1, ledger)
    seats.start(1, ledger)
    ledger.end()
    assert seats.taken == 1
    seats.end(1)
    assert seats.taken == 0


def test_a_request_of_several_prompts_is_let_in_whole_or_not_at_all() -> None:
    seats, ledger = admission(4), RequestLedger()
    seats.ask(2, ledger)  # vLLM asks for one prompt
    seats.claim(2, ledger)
    seats.claim(2, ledger)
    assert seats.taken == 4
    with pytest.raises(VLLMValidationError, match=r"6 sequences.*4 at once"):
        seats.claim(2, ledger)
    ledger.end()
    assert seats.taken == 0


def test_what_a_running_request_needs_is_never_refused() -> None:
    seats, ledger = admission(1), RequestLedger()
    seats.ask(1, ledger)
    seats.claim(1, ledger)
    seats.start(1, ledger)
    seats.closed = True
    seats.claim(1, ledger)
    seats.start(1, ledger)
    seats.end(1)
    seats.end(1)
    ledger.end()
    assert seats.taken == 0


def test_a_sequence_that_starts_after_its_response_is_counted() -> None:
    """A response in the background: the client has gone with its id."""
    seats, ledger = admission(1), RequestLedger()
    seats.ask(1, ledger)
    ledger.end()
    assert seats.taken == 0
    seats.start(1, ledger)
    assert seats.taken == 1
    seats.end(1)
    assert seats.taken == 0


def test_more_sequences_than_there_are_seats_is_a_mistake_and_not_overload() -> None:
    seats = admission(8)
    with pytest.raises(VLLMValidationError, match=r"9 sequences.*8 at once.*--max-num-queued-reqs"):
        seats.ask(9, RequestLedger())
    seats.ask(8, RequestLedger())


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
