"""Rollouts of a server: what its response says of the cut becomes the rollout's columns."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from stepgrpo_core import ExitSettings
from tests.support.service.http_server import Handler, LocalServer
from training.grpo.metrics import rollout_statistics
from training.rollouts.batch import Rollout, RolloutRequest, Sampling
from training.rollouts.remote import RETRIES, RemoteFailure, RemoteRollouts
from training.rollouts.vllm_engine import format_of

MODEL = Path(__file__).parents[2] / "models" / "demo-base"
THINKING = format_of(AutoTokenizer.from_pretrained(MODEL), "\n</think>\n\n").thinking
CLOSING = list(THINKING.closing_ids)
BLOCK = {
    "exit_reason": "confident",
    "steps": 2,
    "reasoning_tokens": 3,
    "probes": 1,
    "probe_tokens": 5,
    "cut_at": 3,
    "injected_tokens": len(CLOSING),
    "discarded_tokens": 7,
    "confidence": 0.97,
    "failed_probes": 2,
}
Serve = Callable[[dict[str, Any], list[int]], Rollout]


@pytest.fixture
def rollout_from() -> Iterator[Serve]:
    """A rollout from a server that answers with the given block and ids."""
    answer: dict[str, Any] = {}

    class Rollouts(Handler):
        def do_POST(self) -> None:
            self.body()
            self.reply(200, json.dumps(answer).encode())

    with LocalServer(Rollouts).serving() as server:

        def serve(block: dict[str, Any], ids: list[int]) -> Rollout:
            choice = {
                "token_ids": ids,
                "finish_reason": "stop",
                "logprobs": {"token_logprobs": [-0.5] * len(ids)},
            }
            answer.update(choices=[choice], stepgrpo=block)
            settings = ExitSettings(policy="confidence")
            (found,) = RemoteRollouts(server.address, "m", settings, THINKING).run(
                [RolloutRequest((1, 2), Sampling(max_tokens=50))]
            )
            return found

        yield serve


def test_the_cut_the_closing_and_what_was_dropped_are_the_servers_own(rollout_from: Serve) -> None:
    ids = [10, 11, 12, *CLOSING, 20, 21]
    rollout = rollout_from(BLOCK, ids)
    put = [False] * 3 + [True] * len(CLOSING) + [False] * 2
    assert list(rollout.injected) == put
    assert [value is None for value in rollout.logprobs] == put
    assert (rollout.discarded_tokens, rollout.outcome.failed_probes) == (7, 2)
    share = 7 / (len(ids) + 5 + 7)
    assert rollout_statistics([rollout])["probes/discarded_share"] == pytest.approx(share)


def test_an_end_that_the_model_wrote_itself_before_the_cut_is_not_taken_for_the_closing(
    rollout_from: Serve,
) -> None:
    ids = [10, THINKING.end_id, 12, *CLOSING, 20]
    assert list(rollout_from(BLOCK, ids).injected).index(True) == 3


def test_thinking_that_text_ends_may_be_closed_in_any_tokens(
    rollout_from: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = dataclasses.replace(THINKING, start_id=-1, end_id=-1, end_text="</think>")
    monkeypatch.setattr(f"{__name__}.THINKING", text)
    assert any(rollout_from(BLOCK, [10, 11, 12, *[13] * len(CLOSING)]).injected)


def test_without_a_cut_nothing_was_injected(rollout_from: Serve) -> None:
    natural = {"exit_reason": "natural", "cut_at": None, "injected_tokens": 0}
    rollout = rollout_from({**BLOCK, **natural, "discarded_tokens": 0}, [10, THINKING.end_id, 20])
    assert not any(rollout.injected)
    assert None not in rollout.logprobs


def test_a_server_that_does_not_say_where_it_cut_is_refused(rollout_from: Serve) -> None:
    older = {name: value for name, value in BLOCK.items() if name != "cut_at"}
    with pytest.raises(RemoteFailure, match="update stepgrpo-serve"):
        rollout_from(older, [10])
    with pytest.raises(RemoteFailure, match="another model's family"):
        rollout_from(BLOCK, [10, 11, 12, *[13] * len(CLOSING)])


def test_an_error_of_the_server_is_retried_and_a_refusal_is_not() -> None:
    statuses = [500, 400, 200]

    class Failing(Handler):
        def do_POST(self) -> None:
            self.body()
            self.reply(statuses.pop(0), b'{"error": {"message": "no such model"}}')

    with LocalServer(Failing).serving() as server:
        rollouts = RemoteRollouts(server.address, "m", ExitSettings(), THINKING)
        with pytest.raises(RemoteFailure, match=r"HTTP 400: .*no such model.*runs there"):
            rollouts.run([RolloutRequest((1, 2), Sampling(max_tokens=50))])
    assert statuses == [200]


def test_a_server_that_cannot_be_reached_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.rollouts.remote.RETRIES", 0)
    with pytest.raises(RemoteFailure, match=r"gave no rollout \(ConnectError"):
        RemoteRollouts("http://127.0.0.1:1", "m", ExitSettings(), THINKING).run(
            [RolloutRequest((1, 2), Sampling(max_tokens=50))]
        )


def test_a_key_is_sent_and_its_limit_is_waited_for_however_often_it_refuses() -> None:
    """Other rollouts of the run may use it up for minutes."""
    keys: list[str] = []

    class Limited(Handler):
        def do_POST(self) -> None:
            self.body()
            keys.append(self.headers["authorization"])
            if len(keys) <= 2 * (RETRIES + 1):
                self.send_response(429)
                self.send_header("retry-after-ms", "1")
                self.send_header("content-length", "0")
                self.end_headers()
                return
            logprobs = {"token_logprobs": [-0.5] * 5}
            choice = {"token_ids": [1] * 5, "finish_reason": "stop", "logprobs": logprobs}
            block = BLOCK | {"cut_at": None, "injected_tokens": 0}
            self.reply(200, json.dumps({"choices": [choice], "stepgrpo": block}).encode())

    with LocalServer(Limited).serving() as server:
        settings = ExitSettings(policy="confidence")
        rollouts = RemoteRollouts(server.address, "m", settings, THINKING, api_key=" secret\n")
        (found,) = rollouts.run([RolloutRequest((1, 2), Sampling(max_tokens=50))])
    assert found.ids == (1,) * 5
    assert set(keys) == {"Bearer secret"}
    assert len(keys) == 2 * (RETRIES + 1) + 1
