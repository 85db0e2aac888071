"""Training rollouts on real vLLM: token for token what the server delivers."""

import dataclasses
import json
from typing import Any

import httpx
import pytest
from transformers import AutoTokenizer

from stepgrpo_core import ExitReason, ExitSettings, InvalidSetting
from tests.support.runs import run
from tests.support.runs.rollouts import EVERY_POLICY, SETTINGS, as_json, requests
from tests.support.servers import MODEL, Server
from training.rollouts.batch import RolloutRequest
from training.rollouts.remote import RemoteFailure, RemoteRollouts
from training.rollouts.vllm_engine import format_of

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.background]

COUNT = 24
Rows = dict[str, list[Any]]


@pytest.fixture(scope="module")
def colocated() -> Rows:
    result = run("-m", "tests.support.runs.rollouts", str(COUNT))
    assert result.returncode == 0, result.stderr[-3000:]
    rows: Rows = json.loads(result.stdout.partition("RESULT ")[2].splitlines()[0])
    return rows


@pytest.fixture(scope="module")
def remote(server: Server) -> list[dict[str, Any]]:
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    thinking = format_of(tokenizer, SETTINGS.closing_text).thinking
    rollouts = RemoteRollouts(server.url, "demo-base", SETTINGS, thinking)
    rows: list[dict[str, Any]] = json.loads(
        json.dumps([as_json(each) for each in rollouts.run(requests(tokenizer, COUNT, 1.0))])
    )
    return rows


def delivered(server: Server, request: RolloutRequest, xargs: dict[str, Any]) -> dict[str, Any]:
    """The server's completion of a rollout's request."""
    body = {
        "model": "demo-base",
        "prompt": list(request.prompt_ids),
        "temperature": 1.0,
        "seed": request.sampling.seed,
        "max_tokens": request.sampling.max_tokens,
        "return_token_ids": True,
        "vllm_xargs": xargs,
    }
    response = httpx.post(f"{server.url}/v1/completions", json=body, timeout=120)
    completion: dict[str, Any] = response.json()
    return completion


def test_a_rollout_is_what_the_server_delivers_for_the_same_seed(
    colocated: Rows, server: Server
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    for row, request in zip(colocated["sampled"], requests(tokenizer, COUNT, 1.0), strict=True):
        response = delivered(server, request, {"exit_policy": "confidence"})
        assert response["choices"][0]["token_ids"] == row["ids"]
        assert response["stepgrpo"]["exit_reason"] == row["outcome"]["reason"]
        assert response["stepgrpo"]["steps"] == row["outcome"]["steps"]
        assert response["stepgrpo"]["probes"] == row["outcome"]["probes"]
    reasons = [row["outcome"]["reason"] for row in colocated["sampled"]]
    assert reasons.count(ExitReason.CONFIDENT) > COUNT // 2


@pytest.mark.parametrize("place", range(len(EVERY_POLICY)), ids=lambda n: EVERY_POLICY[n].policy)
def test_every_policy_decides_alike_in_a_rollout_and_on_the_server(
    colocated: Rows, server: Server, place: int
) -> None:
    settings, rows = EVERY_POLICY[place], colocated["policies"][place]
    names = ("policy", "max_probes", "min_interval", "budget_tokens", "max_steps", "pattern")
    asked = {f"exit_{name}": getattr(settings, name) for name in names}
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    for row, request in zip(rows, requests(tokenizer, len(rows), 1.0), strict=True):
        given = {name: value for name, value in asked.items() if value is not None}
        response = delivered(server, request, given)
        block = response["stepgrpo"]
        assert response["choices"][0]["token_ids"] == row["ids"]
        assert block["policy"] == settings.policy
        assert block["exit_reason"] == row["outcome"]["reason"]
        assert block["probes"] == row["outcome"]["probes"]
        assert row["outcome"]["failed_probes"] == 0
    reasons = {row["outcome"]["reason"] for row in rows}
    if settings.policy in ("budget", "pattern"):
        assert settings.policy in reasons
    if settings.policy in ("consistency", "entropy", "margin", "sufficiency", "verifier"):
        assert sum(row["outcome"]["probes"] for row in rows) > 0


def test_server_mode_makes_the_rollouts_of_colocated_mode(
    colocated: Rows, remote: list[dict[str, Any]]
) -> None:
    for here, there in zip(colocated["sampled"], remote, strict=True):
        for name in ("prompt_ids", "ids", "injected", "ended"):
            assert there[name] == here[name]
        assert there["logprobs"] == pytest.approx(here["logprobs"], abs=1e-3)
        assert there["outcome"]["reason"] == here["outcome"]["reason"]
    # The main stream thinks on beside its trial answers, and what it made is told.
    assert sum(row["discarded_tokens"] for row in remote) > 0
    assert all(any(row["injected"]) for row in remote if row["discarded_tokens"])


def test_server_mode_carries_a_pattern(colocated: Rows, server: Server) -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    thinking = format_of(tokenizer, SETTINGS.closing_text).thinking
    place = next(i for i, each in enumerate(EVERY_POLICY) if each.policy == "pattern")
    rows = colocated["policies"][place]
    asked = requests(tokenizer, len(rows), 1.0)
    asked[0] = dataclasses.replace(asked[0], truncated=False)  # beside the others
    rollouts = RemoteRollouts(server.url, "demo-base", EVERY_POLICY[place], thinking)
    first, *others = rollouts.run(asked)
    assert first.outcome.reason is ExitReason.NATURAL
    assert [list(each.ids) for each in others] == [row["ids"] for row in rows[1:]]


def test_parallel_and_sequential_probing_agree_on_real_vllm(colocated: Rows) -> None:
    for parallel, sequential in zip(
        colocated["greedy"], colocated["greedy, sequential"], strict=True
    ):
        assert sequential["ids"] == parallel["ids"]
        assert sequential["injected"] == parallel["injected"]


def test_the_published_rounds_make_the_same_completions(colocated: Rows) -> None:
    for ours, theirs in zip(colocated["greedy"], colocated["greedy, in rounds"], strict=True):
        assert theirs["ids"] == ours["ids"]
        assert theirs["logprobs"] == pytest.approx(ours["logprobs"], abs=1e-3)


def test_injected_tokens_and_only_they_lack_a_log_prob(colocated: Rows) -> None:
    for row in colocated["sampled"]:
        assert [value is None for value in row["logprobs"]] == row["injected"]


def test_another_server_is_refused_instead_of_training_untruncated(stock: Server) -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    thinking = format_of(tokenizer, SETTINGS.closing_text).thinking
    rollouts = RemoteRollouts(stock.url, "demo-base", SETTINGS, thinking)
    with pytest.raises(RemoteFailure, match="start stepgrpo-serve"):
        rollouts.run(requests(tokenizer, 1, 1.0))


def test_settings_that_requests_cannot_carry_are_refused() -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    thinking = format_of(tokenizer, SETTINGS.closing_text).thinking
    settings = ExitSettings(policy="confidence", mean="minimum")
    with pytest.raises(InvalidSetting, match=r"rollout\.exit\.mean='minimum'"):
        RemoteRollouts("http://localhost", "demo-base", settings, thinking)
