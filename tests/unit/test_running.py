"""Running requests: by which key and id their thinking can be ended."""

import pytest

from service.access.identity import caller_of
from service.load.running import CannotFinish, RunningRequests, client_ids


class Request:
    """A running request of the engine."""

    def __init__(self, sequences: int = 1, refusal: str = "") -> None:
        self.sequences, self.refusal = sequences, refusal
        self.asked = 0

    def finish_thinking(self) -> int:
        if self.refusal:
            raise CannotFinish(self.refusal)
        self.asked += 1
        return self.sequences

    def abort(self, error: Exception) -> None:
        raise AssertionError("it is not aborted here") from error


@pytest.mark.parametrize(
    ("engine_id", "client_id"),
    [
        ("chatcmpl-8f", "chatcmpl-8f"),
        ("cmpl-8f-0", "cmpl-8f"),
        ("cmpl-8f-2-0", "cmpl-8f-2"),
        ("resp_8f_0", "resp_8f"),
        ("cmpl-a\nb-7", "cmpl-a\nb"),
    ],
)
def test_requests_are_known_by_the_id_that_clients_see(engine_id: str, client_id: str) -> None:
    running, request = RunningRequests(), Request()
    with running.track(b"me", client_ids(engine_id), request):
        assert running.finish(b"me", client_id) == 1
    assert request.asked == 1
    assert running.finish(b"me", client_id) is None


def test_the_number_at_the_end_of_a_chats_id_is_vllms_in_a_batch_alone() -> None:
    running, chosen, numbered = RunningRequests(), Request(), Request()
    with (
        running.track(b"me", client_ids("chatcmpl-8f_1"), chosen),
        running.track(b"me", client_ids("chatcmpl-9a_1", batch=True), numbered),
    ):
        assert running.finish(b"me", "chatcmpl-8f") is None
        assert running.finish(b"me", "chatcmpl-8f_1") == 1
        assert running.finish(b"me", "chatcmpl-9a") == 1
    assert (chosen.asked, numbered.asked) == (1, 1)


def test_to_other_callers_a_request_does_not_exist() -> None:
    running, request = RunningRequests(), Request()
    with running.track(b"me", client_ids("chatcmpl-1"), request):
        assert running.finish(b"you", "chatcmpl-1") is None
        assert running.finish(b"", "chatcmpl-1") is None
        assert running.finish(b"me", "chatcmpl-2") is None
    assert request.asked == 0


def test_all_parts_of_a_request_are_asked_and_what_some_refuse_is_left_out() -> None:
    running = RunningRequests()
    parts = [Request(2), Request(refusal="a grammar"), Request(0)]
    with (
        running.track(b"me", client_ids("cmpl-1-0"), parts[0]),
        running.track(b"me", client_ids("cmpl-1-1"), parts[1]),
        running.track(b"me", client_ids("cmpl-1-2"), parts[2]),
    ):
        assert running.finish(b"me", "cmpl-1") == 2
        assert [part.asked for part in parts] == [1, 0, 1]
        with pytest.raises(CannotFinish, match="a grammar"):
            running.finish(b"me", "cmpl-1-1")


def test_nothing_is_kept_of_requests_that_ended_however_they_did() -> None:
    running = RunningRequests()
    with (
        running.track(b"me", client_ids("cmpl-1-0"), Request()),
        pytest.raises(ZeroDivisionError),
        running.track(b"me", client_ids("cmpl-1-1"), Request()),
    ):
        raise ZeroDivisionError
    assert len(running) == 0


def test_callers_are_told_apart_by_their_key_alone() -> None:
    def caller(value: bytes) -> bytes:
        return caller_of([(b"host", b"x"), (b"authorization", value)])

    assert caller(b"Bearer one") == caller(b"bearer one") != caller(b"Bearer two")
    assert b"one" not in caller(b"Bearer one")
    assert caller_of([(b"host", b"x")]) == caller(b"Basic one") == b""
