"""Every parameter of ours, on every endpoint that generates, with values of every type: refused by
its name, or granted."""

import logging
import math
from collections.abc import Iterator
from typing import Any

import pytest

from service.params import FOREIGN, PARAMETERS
from service.params.apis import BATCH, CHAT, MESSAGES, RESPONSES
from service.params.suggestions import CONTAINERS
from stepgrpo_core import POLICIES
from tests.support.service.application import PROPER, Application, Asked

PATHS = [*(row.path for row in FOREIGN), *(f"vllm_xargs.{name}" for name in PARAMETERS)]
VALUES: list[Any] = [
    *(None, True, False, 0, 1, 2, 12, 100, -1, -2, 10**30, -(10**30), 2**63, 2**63 - 1, 2**31),
    *(0.0, 0.5, 1.0, 1.5, -0.5, 5.0, 1e308, math.nan, math.inf, -math.inf),
    *("", " ", "NaN", "inf", "12", "5.0", "true", "none", "low", "high", "minimal", "max", "text"),
    *("enabled", "disabled", "adaptive", "x" * 10_000, "é\n\x00", "\ud800"),
    *([], [1], ["a"], [[]], {}, {"a": 1}, {"type": "enabled"}, {"effort": "low"}, [None], [{}]),
    *(*POLICIES, "confidence+budget", "entropy+confidence"),
]
WAYS = [
    (path, stream) for path in PROPER for stream in (False, True) if path != BATCH or not stream
]
SECRET = "(?=a-secret-of-the-client)"


@pytest.fixture(scope="module")
def application() -> Iterator[Application]:
    made = Application()
    yield made
    made.close()


def body_of(endpoint: str, path: str, value: Any, *, stream: bool) -> dict[str, Any]:
    place, _, leaf = path.rpartition(".")
    asked = {place: {leaf: value}} if place else {leaf: value}
    return PROPER[endpoint] | ({"stream": True} if stream else {}) | asked


def says_nothing(path: str, value: Any) -> bool:
    """Whether a value is granted by changing nothing."""
    sets = {row.path: row.sets for row in FOREIGN}.get(path)
    if sets is None:
        return False
    return value is None or value in ("enabled", "adaptive") or (sets == "switch" and value is True)


def check_refusal(asked: Asked, path: str, value: Any) -> None:
    error = asked.error
    assert error["param"] == path, (path, value, error)
    shown = f"{path}={value!r}"
    begin = shown if len(repr(value)) <= 100 else shown[: len(path) + 40]
    begin = begin.encode("utf-8", "backslashreplace").decode()
    message = error["message"].encode("utf-8", "backslashreplace").decode()
    assert message.startswith(begin), (path, value, error)
    *_, remedy = message.partition("is invalid: ")
    assert len(remedy) > 10, (path, value, error)
    assert "\n" not in message
    assert len(message) < 700


@pytest.mark.parametrize(("endpoint", "stream"), WAYS)
def test_every_value_of_every_parameter_is_refused_by_name_or_granted(
    application: Application, endpoint: str, stream: bool
) -> None:
    granted = refused = 0
    for path in PATHS:
        for value in VALUES:
            asked = application.ask(endpoint, body_of(endpoint, path, value, stream=stream))
            assert asked.status in (200, 400), (path, value, asked.text)
            if asked.status == 400:
                refused += 1
                assert asked.seen == []
                check_refusal(asked, path, value)
                continue
            granted += 1
            assert asked.seen
            for effective in asked.seen:
                sources = effective.sources.values()
                assert says_nothing(path, value) or path in sources, (path, value, effective)
    assert granted > len(PATHS)
    assert refused > 10 * len(PATHS)


@pytest.mark.parametrize(("endpoint", "stream"), WAYS)
def test_a_container_that_is_no_object_is_refused_by_its_name(
    application: Application, endpoint: str, stream: bool
) -> None:
    for name in CONTAINERS:
        for value in VALUES:
            if isinstance(value, dict):
                continue
            body = body_of(endpoint, name, value, stream=stream)
            asked = application.ask(endpoint, body)
            if value is None:
                assert asked.status == 200, (name, asked.text)
            else:
                assert asked.status == 400, (name, value)
                check_refusal(asked, name, value)


@pytest.mark.parametrize(("endpoint", "stream"), WAYS)
def test_misspellings_are_refused_on_every_endpoint(
    application: Application, endpoint: str, stream: bool
) -> None:
    for name in ("thinking_bugdet", "exit_policy", "reasoning_efort", "enable_thinkng"):
        asked = application.ask(endpoint, body_of(endpoint, name, "none", stream=stream))
        assert asked.status == 400
        check_refusal(asked, name, "none")


@pytest.mark.parametrize(("endpoint", "stream"), WAYS)
def test_no_pattern_of_a_client_reaches_the_log(
    application: Application, caplog: pytest.LogCaptureFixture, endpoint: str, stream: bool
) -> None:
    body = body_of(endpoint, "vllm_xargs.exit_pattern", SECRET, stream=stream)
    with caplog.at_level(logging.DEBUG):
        asked = application.ask(endpoint, body)
    assert asked.status == 400
    assert asked.error["param"] == "vllm_xargs.exit_pattern"
    assert "a-secret" not in caplog.text


@pytest.mark.parametrize(("endpoint", "stream"), WAYS)
def test_what_only_the_engine_can_refuse_is_a_400_before_the_stream(
    application: Application, caplog: pytest.LogCaptureFixture, endpoint: str, stream: bool
) -> None:
    """Exactly so many tokens are wanted: nothing could hold a bound."""
    if endpoint == MESSAGES:  # which has no ignore_eos
        return
    body = body_of(endpoint, "thinking_budget", 40, stream=stream) | {"ignore_eos": True}
    asked = application.ask(endpoint, body)
    if endpoint == BATCH:
        body["ignore_eos"] = True
    assert asked.status == 400, asked.text
    assert asked.error["param"] == "thinking_budget"
    assert "ignore_eos" in asked.error["message"]
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_stream_of_responses_begins_whole(application: Application) -> None:
    asked = application.ask(RESPONSES, PROPER[RESPONSES] | {"stream": True})
    assert asked.status == 200
    names = [line for line in asked.text.splitlines() if line.startswith("event: ")]
    assert names[:2] == ["event: response.created", "event: response.in_progress"]
    assert names[-1] == "event: response.completed"
    assert '"stepgrpo":{' in asked.text


def test_chat_and_batch_read_the_same(application: Application) -> None:
    """Each conversation of a batch is bounded as a chat is."""
    for path, value in (
        ("thinking_budget", 40),
        ("reasoning.effort", "low"),
        ("thinking.type", "disabled"),
    ):
        one = application.ask(CHAT, body_of(CHAT, path, value, stream=False)).seen
        several = application.ask(BATCH, body_of(BATCH, path, value, stream=False)).seen
        assert several == one * 2
