"""The client of a judge, over real connections to a server that misbehaves on demand."""

import asyncio
import dataclasses
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from service.clients.circuit_breaker import CircuitBreaker
from service.clients.judge import JudgeClient, JudgeServer, Judgment
from service.clients.openai import ATTEMPTS, MAX_BYTES
from stepgrpo_core import InvalidSetting
from stepgrpo_core.policies import Judge, Reply
from stepgrpo_core.policies.verifier import probability_of_yes
from tests.support.service.judging import KEY, LocalJudge, completion, yes

QUESTION = Judge("Problem: ", " Reasoning: ", " Enough?", max_tokens=1, top=20)
TIMEOUT = 20.0  # for tests in which nothing should time out


@pytest.fixture
def judge() -> Iterator[LocalJudge]:
    with LocalJudge().serving() as serving:
        yield serving


def ask(
    judge: LocalJudge, *, times: int = 1, breaker: CircuitBreaker | None = None, **fields: Any
) -> tuple[list[Reply | None], list[Judgment]]:
    """Ask `times` in a row; return replies and judgments."""
    server = JudgeServer(judge.url, **{"model": "judge", "timeout": TIMEOUT, **fields})
    judgments: list[Judgment] = []

    async def run() -> list[Reply | None]:
        client = JudgeClient(server, on_judgment=judgments.append, breaker=breaker)
        try:
            return [(await client.ask(QUESTION, "Enough?")).reply for _ in range(times)]
        finally:
            await client.close()

    return asyncio.run(run()), judgments


def test_probabilities_are_told_with_their_cost(judge: LocalJudge) -> None:
    (reply,), (judgment,) = ask(judge, key=KEY)
    assert reply == Reply("Yes", (("Yes", -0.1), ("No", -3.0)))
    assert probability_of_yes(reply) == pytest.approx(0.948, abs=1e-3)
    assert judgment == Judgment("answered", reply, 40, 1)
    (asked,) = judge.asked
    assert asked["messages"] == [{"role": "user", "content": "Enough?"}]
    assert (asked["model"], asked["max_tokens"], asked["top_logprobs"]) == ("judge", 1, 20)
    assert judge.keys == [f"Bearer {KEY}"]


def test_without_probabilities_the_text_counts(judge: LocalJudge) -> None:
    judge.behave = lambda _: completion(" yes.", usage=None)
    (reply,), (judgment,) = ask(judge)
    assert reply == Reply(" yes.")
    assert probability_of_yes(reply) == 1.0
    assert (judgment.prompt_tokens, judgment.completion_tokens) == (0, 0)


def test_a_judge_is_asked_in_words_that_it_understands(judge: LocalJudge) -> None:
    def old(body: dict[str, Any]) -> tuple[int, bytes]:
        return (422, b"{}") if "logprobs" in body else completion("no")

    judge.behave = old
    replies, _ = ask(judge, times=2)
    assert replies == [Reply("no")] * 2
    assert [sorted(set(body) - {"model", "messages"}) for body in judge.asked[2:]] == [
        ["max_tokens"],  # after it rejected two others
        ["max_tokens"],
    ]


def test_a_refusal_of_every_wording_says_nothing_about_the_wordings(judge: LocalJudge) -> None:
    answers = iter([*[(400, b"too long")] * 3, yes({})])
    judge.behave = lambda _: next(answers)
    replies, (refused, _) = ask(judge, times=2)
    assert (replies[0], refused.outcome) == (None, "refused")
    assert "chat_template_kwargs" in judge.asked[3]


def test_the_only_model_is_found_and_several_need_a_name(judge: LocalJudge) -> None:
    ask(judge, model=None)
    assert judge.asked[0]["model"] == "judge"
    judge.models = ["one", "two"]
    replies, judgments = ask(judge, model=None)
    assert (replies, judgments[0].outcome, len(judge.asked)) == ([None], "garbage", 1)


@pytest.mark.parametrize("failure", [(503, b""), (429, b""), None])
def test_what_may_pass_is_tried_again_and_not_for_ever(judge: LocalJudge, failure: Any) -> None:
    answers = iter([*[failure] * (ATTEMPTS - 1), yes({}), *[failure] * ATTEMPTS])
    judge.behave = lambda _: next(answers)
    (first, second), judgments = ask(judge, times=2)
    assert first is not None
    assert second is None
    assert judgments[1].outcome == ("unreachable" if failure is None else "refused")
    assert len(judge.asked) == 2 * ATTEMPTS


GARBAGE = {
    "no JSON": b"<html>",
    "deep": b"[" * 100_000,
    "no object": b"[]",
    "no choices": b"{}",
    "empty": json.dumps({"choices": []}).encode(),
    "no message": json.dumps({"choices": [{}]}).encode(),
    "no text": completion(None)[1],
    "nothing said": completion("")[1],
    "text of another kind": completion(["yes"])[1],
    "log-probs of another kind": completion("yes", ("yes", None))[1],  # type: ignore[arg-type]
    "huge": completion("yes", padding="x" * MAX_BYTES)[1],
}


@pytest.mark.parametrize("content", GARBAGE.values(), ids=GARBAGE)
def test_garbage_is_no_answer(judge: LocalJudge, content: bytes) -> None:
    judge.behave = lambda _: (200, content)
    assert ask(judge) == ([None], [Judgment("garbage")])
    assert len(judge.asked) == 1


@pytest.mark.parametrize("status", [301, 401, 403, 404])
def test_a_refusal_is_no_answer_and_not_repeated(judge: LocalJudge, status: int) -> None:
    judge.behave = lambda _: (status, b"{}")
    assert ask(judge) == ([None], [Judgment("refused")])
    assert len(judge.asked) == 1


def test_a_judge_that_hangs_is_waited_for_so_long(judge: LocalJudge) -> None:
    judge.behave = judge.hang
    assert ask(judge, timeout=0.2) == ([None], [Judgment("timeout")])


def test_a_dead_judge_is_no_answer() -> None:
    with LocalJudge().serving() as dead:
        pass
    assert ask(dead) == ([None], [Judgment("unreachable")])


def test_a_judge_that_keeps_failing_is_not_asked_for_a_while(
    judge: LocalJudge, caplog: pytest.LogCaptureFixture
) -> None:
    judge.behave = lambda _: (404, b"{}")
    with caplog.at_level(logging.INFO, "vllm.stepgrpo"):
        _, judgments = ask(
            judge, times=6, breaker=CircuitBreaker(threshold=4, cooldown=3600), key=KEY
        )
    assert [each.outcome for each in judgments] == ["refused"] * 4 + ["paused"] * 2
    assert len(judge.asked) == 4
    (said,) = caplog.messages
    assert "127.0.0.1" in said
    assert KEY not in caplog.text


def test_a_judge_that_recovers_is_asked_again(
    judge: LocalJudge, caplog: pytest.LogCaptureFixture
) -> None:
    answers = iter([*[(404, b"{}")] * 2, *[yes({})] * 2])
    judge.behave = lambda _: next(answers)
    with caplog.at_level(logging.INFO, "vllm.stepgrpo"):
        replies, _ = ask(judge, times=4, breaker=CircuitBreaker(threshold=2, cooldown=0.0))
    assert [reply is not None for reply in replies] == [False, False, True, True]
    assert "responds again" in caplog.messages[-1]


def test_a_question_that_is_cancelled_is_counted_and_no_failure(judge: LocalJudge) -> None:
    judge.behave = judge.hang
    judgments: list[Judgment] = []
    breaker = CircuitBreaker(threshold=1)

    async def run() -> None:
        server = JudgeServer(judge.url, "judge", TIMEOUT)
        client = JudgeClient(server, on_judgment=judgments.append, breaker=breaker)
        task = asyncio.create_task(client.ask(QUESTION, "?"))
        assert await asyncio.to_thread(judge.arrived.wait, TIMEOUT)
        task.cancel()
        await asyncio.wait([task])
        await client.close()

    asyncio.run(run())
    assert judgments == [Judgment("cancelled")]
    assert breaker.closed


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"url": "judge:8000"}, "verifier_url='judge:8000'.*use http://HOST:PORT/v1"),
        ({"url": "ftp://judge/v1"}, "verifier_url='ftp://judge/v1'"),
        ({"url": "http://"}, "verifier_url='http://'"),
        ({"url": "http://judge:x/v1"}, "verifier_url='http://judge:x/v1'"),
        ({"url": "http://me:hush@judge/v1"}, "password.*STEPGRPO_VERIFIER_API_KEY"),
        ({"timeout": 0}, "verifier_timeout=0.*seconds"),
        ({"timeout": float("nan")}, "verifier_timeout=nan"),
        ({"key": "hush\n"}, "STEPGRPO_VERIFIER_API_KEY='...'.*ASCII"),
        ({"key": "hüsh"}, "STEPGRPO_VERIFIER_API_KEY='...'.*ASCII"),
    ],
)
def test_where_no_judge_can_be_is_refused_without_telling_secrets(
    fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidSetting, match=message) as caught:
        JudgeServer(**{"url": "http://judge/v1", **fields})
    assert "hush" not in str(caught.value)
    assert "hüsh" not in str(caught.value)


def test_the_key_is_in_no_representation() -> None:
    server = JudgeServer("http://judge/v1", key=KEY)
    assert KEY not in repr(server)
    assert dataclasses.replace(server, timeout=1.0).key == KEY
