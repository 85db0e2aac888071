"""Paired runs on real servers: greedy ones measure exactly what no exit would take."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from scripts.dashboards import SAVINGS
from service.clients.openai import Address, OpenAIClient
from service.engine.request import EngineRequest
from service.savings.continuations import Continuation, RemoteBackend
from stepgrpo_core import last_box
from tests.support.observing.prometheus import check_data, scraping, wait_scrapes
from tests.support.servers import (
    CALIBRATED,
    MODEL,
    OURS,
    ROOT,
    Server,
    check_accounts,
    running,
)
from training.demo.world import sample_problems

pytestmark = [pytest.mark.integration, pytest.mark.slow]

PROBLEMS = 24
JUDGED = 40  # pairs before the guard judges: more than those of the first test
TUNED = "demo-step-grpo"


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pairs") / "sums.sqlite"


@pytest.fixture(scope="module")
def paired(state: Path) -> Iterator[Server]:
    """Every exit is paired. Hardly any exit of the demo's may change an answer."""
    flags = ("--exit-policy", "confidence", "--exit-pairs", "1", "--exit-state", str(state))
    guard = ("--exit-agreement", "0.99", "--exit-agreement-pairs", str(JUDGED))
    with running(OURS, state.parent / "server.log", *flags, *guard, *CALIBRATED) as server:
        yield server


Answers = list[dict[str, Any]]


async def ask(server: Server, problems: range, model: str = "demo-base", **more: Any) -> Answers:
    texts = [each.prompt for each in sample_problems(3, "test", problems.stop)]
    async with httpx.AsyncClient(base_url=server.url, timeout=300) as client:

        async def one(index: int) -> dict[str, Any]:
            body = {
                "model": model,
                "messages": [{"role": "user", "content": texts[index]}],
                "max_tokens": 900,
                "temperature": 0,
            }
            answer = await client.post("/v1/chat/completions", json=body | more)
            answer.raise_for_status()
            found: dict[str, Any] = answer.json()
            return found

        return list(await asyncio.gather(*map(one, problems)))


NO_EXIT: dict[str, Any] = {"vllm_xargs": {"exit_policy": "none"}}


def tokens(answers: Answers) -> int:
    return sum(each["usage"]["completion_tokens"] for each in answers)


def box(answer: dict[str, Any]) -> str | None:
    return last_box(answer["choices"][0]["message"]["content"])


def rows(server: Server) -> list[dict[str, Any]]:
    answer = httpx.get(f"{server.url}/v1/stepgrpo/savings", timeout=30)
    answer.raise_for_status()
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


def wait_pairs(server: Server, count: int) -> None:
    deadline = time.monotonic() + 120
    while (made := server.by("stepgrpo_pairs_total", "outcome").total()) < count:
        assert time.monotonic() < deadline, f"{made} of {count} pairs"
        time.sleep(0.2)


def test_pairs_measure_what_was_saved(paired: Server) -> None:
    cut = asyncio.run(ask(paired, range(PROBLEMS)))
    exits = [i for i, each in enumerate(cut) if each["stepgrpo"]["exit_reason"] == "confident"]
    assert len(exits) > PROBLEMS / 2
    wait_pairs(paired, len(exits))
    whole = asyncio.run(ask(paired, range(PROBLEMS), **NO_EXIT))
    (row,) = rows(paired)
    assert (row["source"], row["method"], row["requests"]) == ("exit", "measured", PROBLEMS)
    assert row["requests_compared"] == len(exits)
    # All were measured, so there is nothing left to estimate.
    saved = tokens(whole) - tokens(cut)
    assert row["saved_total"] == {"value": saved, "low": saved, "high": saved}
    assert row["compression"]["value"] == pytest.approx(tokens(cut) / tokens(whole), abs=1e-4)
    assert row["net_saved_total"]["value"] < saved
    boxes = [(box(cut[i]), box(whole[i])) for i in exits]
    judged = [pair for pair in boxes if pair[1] is not None]
    assert row["pairs_judged"] == len(judged)
    same = sum(one == other for one, other in judged) / len(judged)
    assert row["agreement"]["value"] == pytest.approx(same, abs=1e-4)


def test_what_pairs_cost_is_in_the_accounts(paired: Server) -> None:
    paired.wait_idle(60)
    metrics = paired.metrics()
    assert metrics["stepgrpo_pair_tokens_total"] > 0
    check_accounts(metrics)
    assert set(paired.by("stepgrpo_pairs_total", "outcome")) == {"measured"}


def test_the_dashboard_shows_it(paired: Server, tmp_path: Path) -> None:
    panels = [each for each in SAVINGS.panels if each.title.startswith("Paired")]
    assert len(panels) == 4
    with scraping(paired, tmp_path) as url:
        wait_scrapes(url, 3)
        for panel in panels:
            check_data(url, panel)


def test_another_server_makes_the_same_run(paired: Server) -> None:
    """Over HTTP and from token ids, as for a server with --exit-pairs-url."""
    from transformers import AutoTokenizer  # noqa: PLC0415 - slow
    from vllm.sampling_params import SamplingParams  # noqa: PLC0415

    (whole,) = asyncio.run(ask(paired, range(1), **NO_EXIT))
    problem = sample_problems(3, "test", 1)[0].prompt
    ids = AutoTokenizer.from_pretrained(MODEL).apply_chat_template(
        [{"role": "user", "content": problem}], add_generation_prompt=True, return_dict=False
    )
    request = EngineRequest(
        "a", {"prompt_token_ids": ids}, SamplingParams(temperature=0, max_tokens=900), {}
    )
    run = Continuation(request, "demo-base", base=False, ids=[])

    async def make() -> None:
        runs = RemoteBackend(OpenAIClient(Address(f"{paired.url}/v1", 60), "server of pairs"))
        await runs.resume(run)
        await runs.close()

    asyncio.run(make())
    assert run.ended
    assert run.length == whole["usage"]["completion_tokens"]
    assert run.text is not None
    assert last_box(run.text.partition("</think>")[2]) == box(whole)


def guard(state: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "service.cli", "guard", "--state", str(state), *arguments]
    return subprocess.run(command, capture_output=True, check=True, text=True, cwd=ROOT).stdout


def test_the_guard_switches_off_a_policy_that_changes_answers(paired: Server, state: Path) -> None:
    asyncio.run(ask(paired, range(PROBLEMS, PROBLEMS + 48)))
    deadline = time.monotonic() + 120
    while not paired.metrics().get("stepgrpo_policy_switched_off"):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert "switched off for demo-base" in paired.log.read_text()
    ready = httpx.get(f"{paired.url}/ready", timeout=30)
    assert ready.status_code == 200
    assert "policy confidence is switched off for demo-base" in ready.text
    default, named, bound = (
        asyncio.run(ask(paired, range(1), **more))[0]["stepgrpo"]
        for more in (
            {},
            {"vllm_xargs": {"exit_policy": "confidence"}},
            {"vllm_xargs": {"exit_policy": "confidence+budget"}, "thinking_token_budget": 8},
        )
    )
    for block in (default, named):
        assert (block["policy"], block["abstained"]) == ("none", "switched_off")
    assert bound["exit_reason"] in ("budget", "confident")  # confidence+budget is another policy
    assert "confidence  since" in guard(state)
    assert "is on again" in guard(state, "--switch-on", "demo-base", "confidence")
    while "switched off" in httpx.get(f"{paired.url}/ready", timeout=30).text:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    (again,) = asyncio.run(ask(paired, range(1)))
    assert again["stepgrpo"]["policy"] == "confidence"


def test_what_training_saves_is_measured_against_the_base_model(tmp_path: Path) -> None:
    """Beside each other in one engine: the trained adapter, and the base it was trained from.

    In one batch they must not mix: on CPUs vLLM's LoRA operations have no word for "no adapter".
    """
    adapter = ("--enable-lora", "--lora-modules", f"{TUNED}={MODEL.parent / TUNED}")
    pairs = ("--exit-policy", "none", "--exit-pairs", "1", "--exit-pairs-base", "demo-base")
    held = ("--exit-holdout", "0.4", "--exit-holdout-base", "demo-base")
    with running(OURS, tmp_path / "server.log", *adapter, *pairs, *held) as server:
        tuned = asyncio.run(ask(server, range(32), TUNED))
        out = server.by("stepgrpo_requests_total", "policy")["holdout"]
        assert 0 < out < 32
        wait_pairs(server, 32 - out)
        base = asyncio.run(ask(server, range(32)))
        of_holdout, row = rows(server)  # the base's runs went on beside the adapter's requests
        assert (row["model_name"], row["source"], row["method"]) == (TUNED, "training", "measured")
        # The base served what was held out: there it is no saving, and no pair follows it.
        saved = tokens(base) - tokens(tuned)
        assert row["saved_total"]["value"] == saved > 0
        assert row["requests"] == row["requests_compared"] == 32 - out
        assert (of_holdout["source"], of_holdout["method"]) == ("training", "holdout")
        assert (of_holdout["requests"], of_holdout["requests_compared"]) == (32 - out, out)
        server.wait_idle(60)
        check_accounts(server.metrics())
