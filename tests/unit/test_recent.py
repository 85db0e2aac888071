"""Blocks of responses by their id: for the key that asked, for some minutes, in bounded memory."""

from service.params.apis import BATCH, CHAT
from service.records.recent import KEPT_SECONDS, MOST_BYTES, RecentResponses
from tests.support.service.application import PROPER, Application

BLOCK = {"policy": "confidence", "exit_reason": "confident", "reasoning_tokens": 12}


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_response_is_found_by_each_of_its_ids_with_the_key_that_asked() -> None:
    recent = RecentResponses()
    recent.keep(b"mine", {"resp_a", "resp_a_0"}, BLOCK)
    assert recent.find(b"mine", "resp_a") == recent.find(b"mine", "resp_a_0") == BLOCK
    assert recent.find(b"yours", "resp_a") is None
    assert recent.find(b"", "resp_a") is None
    assert recent.find(b"mine", "resp_b") is None


def test_an_id_that_comes_again_means_the_latest() -> None:
    recent = RecentResponses()
    for number in range(3):
        recent.keep(b"", ["x"], BLOCK | {"reasoning_tokens": number})
    assert recent.find(b"", "x")["reasoning_tokens"] == 2
    assert len(recent) == 1


def test_after_some_minutes_it_is_gone() -> None:
    clock = Clock()
    recent = RecentResponses(clock)
    recent.keep(b"", ["old"], BLOCK)
    clock.now = KEPT_SECONDS - 1
    assert recent.find(b"", "old") == BLOCK
    recent.keep(b"", ["new"], BLOCK)
    clock.now = KEPT_SECONDS
    assert recent.find(b"", "old") is None
    assert recent.find(b"", "new") == BLOCK
    clock.now = 2 * KEPT_SECONDS
    recent.keep(b"", ["newest"], BLOCK)
    assert len(recent) == 1


def test_memory_is_bounded_however_many_and_large_they_are() -> None:
    recent = RecentResponses()
    large = {"choices": ["x" * 1000] * 100}
    for number in range(1000):
        recent.keep(b"", [f"{number}"], large)
    assert 50 < len(recent) <= MOST_BYTES // 100_000
    assert recent.find(b"", "999") == large
    assert recent.find(b"", "0") is None
    for number in range(50_000):
        recent.keep(b"", [f"small {number}"], BLOCK)
    assert len(recent) < MOST_BYTES // 512
    assert recent.find(b"", "small 49999") == BLOCK


def test_the_engine_keeps_what_it_served() -> None:
    application = Application()
    asked = application.ask(CHAT, PROPER[CHAT] | {"stream": True})
    assert asked.status == 200
    block = application.engine.recent.find(b"", "chatcmpl-x_0")["stepgrpo"]
    assert block["policy"] == "confidence"
    assert f'"reasoning_tokens":{block["reasoning_tokens"]}' in asked.text
    application.ask(BATCH, PROPER[BATCH])
    several = application.engine.recent.find(b"", "chatcmpl-x")["stepgrpo"]
    application.close()
    assert [each["index"] for each in several["choices"]] == [0, 1]
