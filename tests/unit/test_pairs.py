"""Pairs: who is paired, what is entered of them, and runs that another server makes or fails."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from vllm.sampling_params import SamplingParams

from service.clients.openai import Address, OpenAIClient
from service.engine.request import EngineRequest
from service.records.sequence import (
    ContinuationInput,
    RequestContext,
    SequenceRecord,
    current_request,
)
from service.savings.continuations import Continuation, ContinuationBackend, RemoteBackend
from service.savings.pairs import QUEUE, Pairs
from service.savings.plan import Plan
from service.savings.predictions import Predictions
from service.savings.quality_gate import QualityGate
from service.savings.state.series import EXIT, TRAINED, WATCHED
from service.savings.state.store import SumStore
from stepgrpo_core import ExitReason, Outcome, Prediction
from stepgrpo_core.families.thinking import TokenizerFormat
from tests.support.core.scripted import END, THINKING
from tests.support.service.judging import LocalJudge

PREDICTION = Prediction(tokens=150, low=120, high=200)


def request(**fields: Any) -> EngineRequest:
    params = SamplingParams(max_tokens=500, **{"temperature": 0.6, "seed": 3, **fields})
    return EngineRequest("chatcmpl-1", {"type": "token", "prompt_token_ids": [7, 8, 9]}, params, {})


def exited(**changes: Any) -> SequenceRecord:
    """Cut after 60 tokens, of which 70 had come; 80 were delivered."""
    made = SequenceRecord(0, "demo", "confidence", prompt_tokens=3)
    made.outcome = Outcome(ExitReason.CONFIDENT, 2, 60, 1, 0, (0.97,), None)
    made.status, made.finish_reason = "completed", "stop"
    made.generated_tokens, made.injected_tokens, made.discarded_tokens = 87, 3, 10
    made.probe_tokens, made.cut_at, made.predicted = 5, 60, PREDICTION
    made.continuation = ContinuationInput(list(range(100, 170)), answer=[50, 51])
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def natural(**changes: Any) -> SequenceRecord:
    outcome = Outcome(ExitReason.NATURAL, 2, 60, 1, 0, (0.5,), None)
    blank = {"outcome": outcome, "cut_at": None, "predicted": None, "continuation": None}
    return exited(**(blank | changes))


class Scripted:
    """A backend whose continuations end as scripted; the words of an answer are its ids."""

    def __init__(self, rest: list[int], *, stops: int = 0, room: int = 1) -> None:
        self.rest, self.stops, self.seats = rest, stops, room
        self.seen: list[Continuation] = []
        self.contexts: list[RequestContext | None] = []

    def capacity(self) -> int:
        return self.seats

    async def resume(self, run: Continuation) -> None:
        self.seen.append(run)
        self.contexts.append(current_request.get())
        await asyncio.sleep(0)
        if self.stops:
            self.stops -= 1
            run.ids.append(99)
            return
        run.ids += self.rest
        run.length, run.ended = len(run.ids), True

    async def close(self) -> None:
        """Nothing."""


@pytest.fixture
def store() -> Iterator[SumStore]:
    made = SumStore()
    yield made
    made.close()


Offer = Callable[[Pairs], None]


def make(
    store: SumStore,
    runs: ContinuationBackend,
    offer: Offer,
    plan: Plan | None = None,
    count: int = 1,
) -> Counter[str]:
    """What became of the pairs, once `count` of them have ended."""
    plan = plan or Plan(pairs=1, pairs_base="base")
    ended: Counter[str] = Counter()

    async def play() -> None:
        pairs = Pairs(
            plan,
            store,
            QualityGate(store, plan),
            Predictions(store),
            backend=runs,
            writing=TokenizerFormat(
                THINKING, lambda _: (), lambda ids: " ".join(map(str, ids)), None
            ),
            end="</think>",
            ended=lambda _, outcome: ended.update([outcome]),
        )
        offer(pairs)
        async with asyncio.timeout(30):
            while ended.total() < count:  # noqa: ASYNC110 - polls what a callback fills
                await asyncio.sleep(0.01)
        await pairs.close()

    asyncio.run(play())
    return ended


def entered(store: SumStore, series: str = EXIT) -> Mapping[str, float]:
    (found,) = store.read(series).values()
    return found


def test_the_rest_of_the_run_is_made_and_compared(store: SumStore) -> None:
    runs = Scripted([*range(10, 30), END, 50, 51])
    assert make(store, runs, lambda pairs: pairs.add(request(), exited())) == {"measured": 1}
    assert entered(store) == {
        "requests": 1, "tokens": 80, "saved": 70, "cost": 15,
        "pairs": 1, "error": 93 - 150, "agreed": 1,
    }  # fmt: skip
    (run,) = runs.seen
    assert run.ids[:70] == list(range(100, 170))
    assert not run.base


def test_another_answer_differs_and_none_is_not_judged(store: SumStore) -> None:
    for rest, name in (([END, 50, 52], "differed"), ([11, 12, 13], "unjudged")):
        make(store, Scripted(rest), lambda pairs: pairs.add(request(), exited()))
        assert entered(store)[name] == 1


def test_a_run_that_gave_way_goes_on_where_it_stopped(store: SumStore) -> None:
    runs = Scripted([END, 50, 51], stops=3)
    make(store, runs, lambda pairs: pairs.add(request(), exited()))
    assert len(runs.seen) == 4
    assert entered(store)["error"] == 70 + 3 + 3 - 150


def test_a_run_is_made_for_the_requests_tenant(store: SumStore) -> None:
    """Whose salt it gets depends on the context of the request, long after its response."""
    runs, context = Scripted([END, 50, 51], stops=1), RequestContext(b"tenant")

    def offer(pairs: Pairs) -> None:
        token = current_request.set(context)
        pairs.add(request(), exited())
        current_request.reset(token)

    make(store, runs, offer)
    assert runs.contexts == [context, context]


def test_a_shadow_of_a_policy_saves_nothing_and_is_not_counted(store: SumStore) -> None:
    def offer(pairs: Pairs) -> None:
        pairs.add(request(), natural(settings={"shadow": True}))
        pairs.add(request(), exited())

    make(store, Scripted([END, 50]), offer)
    assert "natural" not in entered(store)


def test_a_run_that_had_ended_when_it_was_cut_costs_nothing(store: SumStore) -> None:
    continuation = ContinuationInput([100, END, 50, 51], ended=True, answer=[50, 51])
    runs = Scripted([])
    make(store, runs, lambda pairs: pairs.add(request(), exited(continuation=continuation)))
    assert runs.seen == []
    assert entered(store)["error"] == 4 - 150
    assert entered(store)["agreed"] == 1


def test_without_a_prediction_the_request_itself_is_the_baseline(store: SumStore) -> None:
    make(store, Scripted([END, 50]), lambda pairs: pairs.add(request(), exited(predicted=None)))
    assert (entered(store)["saved"], entered(store)["error"]) == (0, 72 - 80)
    assert store.recent("scores") == {}


def test_what_ended_by_itself_saved_nothing_and_cost_its_trials(store: SumStore) -> None:
    def offer(pairs: Pairs) -> None:
        pairs.add(request(), natural())
        pairs.add(request(), exited())

    make(store, Scripted([END, 50]), offer)
    found = entered(store)
    assert (found["natural"], found["natural_tokens"], found["cost"]) == (1, 80, 30)


def test_requests_that_nothing_exits_are_paired_with_the_base_model(store: SumStore) -> None:
    continuation = ContinuationInput(answer=[11, 12, END, 50, 51])
    runs = Scripted([11] * 200 + [END, 50, 51])
    make(
        store,
        runs,
        lambda pairs: pairs.add(request(), natural(continuation=continuation, policy="none")),
    )
    found = entered(store, TRAINED)
    assert (found["requests"], found["error"], found["agreed"]) == (1, 203 - 80, 1)
    (run,) = runs.seen
    assert (run.model, run.base) == ("base", True)


@pytest.mark.parametrize(
    ("fields", "changes"),
    [
        ({"stop": ["x"]}, {}),
        ({"presence_penalty": 0.5}, {}),
        ({}, {"status": "aborted"}),
        ({}, {"finish_reason": "length"}),
        ({}, {"stopped": True}),
        ({}, {"outcome": Outcome(ExitReason.CLIENT, 2, 60, 1, 0, (), None)}),
    ],
)
def test_what_tells_nothing_is_not_paired(
    store: SumStore, fields: dict[str, Any], changes: dict[str, Any]
) -> None:
    def offer(pairs: Pairs) -> None:
        pairs.add(request(**fields), exited(**changes))
        pairs.add(request(), exited())

    assert make(store, Scripted([END, 50]), offer) == {"measured": 1}
    assert entered(store)["requests"] == 1
    assert entered(store).get("unmeasurable", 0) == bool(fields)


def test_the_queue_is_bounded_and_what_waits_at_the_end_is_dropped(store: SumStore) -> None:
    def offer(pairs: Pairs) -> None:
        for _ in range(QUEUE + 5):
            pairs.add(request(), exited())

    runs = Scripted([], room=0)
    ended = make(store, runs, offer, count=5)
    assert ended == {"dropped": QUEUE + 5}
    assert entered(store)["requests"] == QUEUE + 5
    assert runs.seen == []


def test_only_the_share_is_paired(store: SumStore) -> None:
    def offer(pairs: Pairs) -> None:
        for _ in range(400):
            pairs.add(request(), exited())

    ended = make(store, Scripted([END, 50], room=400), offer, Plan(pairs=0.1), count=15)
    assert 15 <= ended.total() <= 75  # 40 expected, five standard errors


# Another server.


@pytest.fixture
def judge() -> Iterator[LocalJudge]:
    with LocalJudge().serving() as serving:
        yield serving


def remote(url: str, seconds: float = 20.0) -> RemoteBackend:
    return RemoteBackend(OpenAIClient(Address(url, seconds, "a-key"), "server of pairs"))


def said(text: str, tokens: int) -> tuple[int, bytes]:
    usage = {"completion_tokens": tokens}
    return 200, json.dumps({"choices": [{"text": text}], "usage": usage}).encode()


def test_another_server_goes_on_from_token_ids(store: SumStore, judge: LocalJudge) -> None:
    judge.behave = lambda _: said("more</think>50 51", 30)
    ended = run_remote(store, judge.url)
    assert ended == {"measured": 1}
    assert entered(store)["error"] == 100 - 150
    assert entered(store)["agreed"] == 1
    (asked,) = judge.asked
    assert asked["prompt"] == [7, 8, 9, *range(100, 170)]
    assert (asked["model"], asked["max_tokens"], asked["temperature"]) == ("demo", 430, 0.6)
    assert asked["vllm_xargs"] == {"exit_policy": "none"}
    assert "seed" not in asked
    assert judge.keys == ["Bearer a-key"]


def run_remote(store: SumStore, url: str, count: int = 1, seconds: float = 20.0) -> Counter[str]:
    class Later:
        """Made inside the loop that uses it."""

        def __init__(self) -> None:
            self._runs: RemoteBackend | None = None

        def capacity(self) -> int:
            return 1

        async def resume(self, run: Continuation) -> None:
            self._runs = self._runs or remote(url, seconds)
            await self._runs.resume(run)

        async def close(self) -> None:
            if self._runs is not None:
                await self._runs.close()

    def offer(pairs: Pairs) -> None:
        for _ in range(count):
            pairs.add(request(), exited())

    return make(store, Later(), offer, count=count)


def test_a_server_that_knows_only_the_standard_is_asked_in_plain_words(
    store: SumStore, judge: LocalJudge
) -> None:
    judge.behave = lambda body: (400, b"{}") if "top_k" in body else said("</think>50", 3)
    assert run_remote(store, judge.url) == {"measured": 1}
    assert entered(store)["differed"] == 1
    assert len(judge.asked) == 2


def test_garbage_is_a_failure_and_no_measurement(store: SumStore, judge: LocalJudge) -> None:
    judge.behave = lambda _: (200, b'{"choices": []}')
    assert run_remote(store, judge.url) == {"failed": 1}
    assert "pairs" not in {k for k, v in entered(store).items() if v}


def test_a_server_that_hangs_is_given_up(store: SumStore, judge: LocalJudge) -> None:
    judge.behave = judge.hang
    assert run_remote(store, judge.url, seconds=0.5) == {"failed": 1}


def test_a_dead_url_costs_little_and_loses_nothing(store: SumStore) -> None:
    """After a few failures in a row its server is asked less often."""
    started = time.monotonic()
    assert run_remote(store, "http://127.0.0.1:9/v1", count=40) == {"failed": 40}
    assert time.monotonic() - started < 30
    found = entered(store)
    assert (found["requests"], found["pairs"]) == (40, 0)


def test_losses_under_a_guarantee_are_watched_with_and_without_an_exit(store: SumStore) -> None:
    promised = {"settings": {"guarantee": {"risk": "changed"}}}

    def offer(pairs: Pairs) -> None:
        for each in (exited(**promised), natural(**promised), exited(), natural()):
            pairs.add(request(), each)
        pairs.add(request(presence_penalty=1.0), natural(**promised))  # no pair could be made of it

    make(store, Scripted([END, 50, 52], room=2), offer, count=2)
    assert entered(store, WATCHED) == {"changed": 1, "kept": 1}
