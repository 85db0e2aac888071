"""The holdout on a real server: who is held out, what it shows, and what survives a kill."""

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from scripts.dashboards import SAVINGS
from service.savings.conversations import conversation_of
from service.savings.state.store import SumStore
from stepgrpo_core.savings.holdout import Holdout
from tests.support.chat import steady
from tests.support.observing.prometheus import check_data, scraping, wait_scrapes
from tests.support.servers import (
    CALIBRATED,
    MODEL,
    OURS,
    Server,
    check_accounts,
    running,
)
from training.demo.world import sample_problems

pytestmark = [pytest.mark.integration, pytest.mark.slow]

REQUESTS, OF_TUNED = 160, 64
LOCKED_SECONDS = 1.0  # what SQLite is waited for is twice that; tests/unit have the promised time
BASE, TUNED = "demo-base", "demo-step-grpo"
FLAGS = (
    *("--exit-policy", "confidence", "--exit-holdout", "0.5", "--exit-holdout-base", BASE),
    *("--enable-lora", "--lora-modules", f"{TUNED}={MODEL.parent / TUNED}"),
    *CALIBRATED,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("holdout")


@pytest.fixture(scope="module")
def state(folder: Path) -> Path:
    return folder / "sums.sqlite"


@pytest.fixture(scope="module")
def held(folder: Path, state: Path) -> Iterator[Server]:
    with running(OURS, folder / "server.log", *FLAGS, "--exit-state", str(state)) as server:
        yield server


@pytest.fixture(scope="module")
def answers(held: Server) -> list[dict[str, Any]]:
    """One turn of many conversations."""
    return asyncio.run(ask(held, range(REQUESTS)))


PROMPTS = [each.prompt for each in sample_problems(0, "test", REQUESTS + 8)]


def body_of(index: int, model: str = BASE, **more: Any) -> dict[str, Any]:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": PROMPTS[index]}],
        "max_tokens": 900,
        "temperature": 0.6,
        "seed": index,
    }
    return body | more


async def ask(server: Server, problems: range, **more: Any) -> list[dict[str, Any]]:
    async with httpx.AsyncClient(base_url=server.url, timeout=300) as client:

        async def one(index: int) -> dict[str, Any]:
            answer = await client.post("/v1/chat/completions", json=body_of(index, **more))
            answer.raise_for_status()
            found: dict[str, Any] = answer.json()
            return found

        return list(await asyncio.gather(*map(one, problems)))


def savings(server: Server, model: str = BASE) -> dict[str, Any]:
    answer = httpx.get(f"{server.url}/v1/stepgrpo/savings", timeout=30)
    answer.raise_for_status()
    (row,) = (each for each in answer.json()["data"] if each["model_name"] == model)
    found: dict[str, Any] = row
    return found


def test_the_holdout_shows_what_exits_save(held: Server, answers: list[dict[str, Any]]) -> None:
    row = savings(held)
    assert row["requests"] + row["requests_compared"] == REQUESTS
    assert 0.3 * REQUESTS < row["requests_compared"] < 0.7 * REQUESTS
    saved = row["saved_per_request"]
    assert 0 < saved["low"] < saved["value"] < saved["high"]
    assert row["net_saved_per_request"]["value"] < saved["value"]
    assert row["compression"]["high"] < 1
    mean = sum(each["usage"]["completion_tokens"] for each in answers) / REQUESTS
    assert mean < 300  # sanity of the demo, so that the figures above mean something


def test_nobody_can_tell_from_a_response_who_was_held_out(answers: list[dict[str, Any]]) -> None:
    blocks = [each["stepgrpo"] for each in answers]
    assert {block["policy"] for block in blocks} == {"confidence"}
    # A busy server may refuse or lose trial answers, which then is said; that tells nothing.
    told = {frozenset(block) - {"failed_probes", "refused_probes"} for block in blocks}
    assert len(told) == 1


def test_metrics_tell_the_sides_apart(held: Server, answers: list[dict[str, Any]]) -> None:
    del answers
    check_accounts(held.metrics())
    text = httpx.get(f"{held.url}/metrics", timeout=30).text
    row = savings(held)
    side = 'stepgrpo_holdout_requests{model_name="demo-base",policy="confidence",side="held",'
    assert f'{side}source="exit"}} {float(row["requests_compared"])}' in text
    by_label = (
        'stepgrpo_requests_total{model_name="demo-base",outcome="completed",policy="holdout"}'
    )
    assert f"{by_label} {float(row['requests_compared'])}" in text
    assert 'stepgrpo_holdout_saved_tokens{bound="low",measure="net"' in text


def test_the_dashboard_shows_it(
    held: Server, answers: list[dict[str, Any]], tmp_path: Path
) -> None:
    del answers
    (panel,) = (each for each in SAVINGS.panels if each.title.startswith("Holdout"))
    with scraping(held, tmp_path) as url:
        wait_scrapes(url, 1)
        check_data(url, panel)


def test_a_request_that_sets_something_gets_it_and_takes_no_part(held: Server) -> None:
    before = savings(held)
    asked = asyncio.run(ask(held, range(20), vllm_xargs={"exit_policy": "confidence"}))
    assert any(each["stepgrpo"]["exit_reason"] == "confident" for each in asked)
    assert all(each["stepgrpo"]["probes"] for each in asked)
    assert savings(held) == before


def test_a_conversation_stays_where_it_was_dealt(held: Server) -> None:
    """Its requests repeat, so they were treated alike."""
    first, second = (asyncio.run(ask(held, range(12))) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert one["choices"][0]["message"] == other["choices"][0]["message"]
        assert steady(one["stepgrpo"]) == steady(other["stepgrpo"])


def test_csv_has_the_same_figures(held: Server) -> None:
    answer = httpx.get(f"{held.url}/v1/stepgrpo/savings?format=csv", timeout=30)
    assert answer.headers["content-type"].startswith("text/csv")
    head, *rows = answer.text.splitlines()
    found = [dict(zip(head.split(","), row.split(","), strict=True)) for row in rows]
    (figures,) = (each for each in found if each["model_name"] == BASE)
    assert float(figures["saved_total_value"]) == savings(held)["saved_total"]["value"]


# A trained model, whose base serves what is held out.

GREEDY = {"temperature": 0, "seed": None}
NO_EXIT = {"vllm_xargs": {"exit_policy": "none"}}


@pytest.fixture(scope="module")
def tuned(held: Server) -> list[dict[str, Any]]:
    return asyncio.run(ask(held, range(OF_TUNED), model=TUNED, **GREEDY))


def test_the_base_answers_what_is_held_out_of_the_trained_model(
    held: Server, state: Path, tuned: list[dict[str, Any]]
) -> None:
    store = SumStore(state)
    dealer = Holdout(0.5, store.secret("holdout"))
    store.close()
    bodies = [body_of(index, TUNED, **GREEDY) for index in range(OF_TUNED)]
    out = [dealer.assign(conversation_of(body)).control for body in bodies]
    base, own = (
        asyncio.run(ask(held, range(OF_TUNED), model=model, **GREEDY, **NO_EXIT))
        for model in (BASE, TUNED)
    )
    for answer, of_base, is_out in zip(tuned, base, out, strict=True):
        if is_out:
            assert answer["choices"] == of_base["choices"]
            usage = answer["usage"] | {"stepgrpo": None}  # which requests without exits have not
            assert usage == of_base["usage"] | {"stepgrpo": None}
    # So they are the base's, and the others are not: its answers are another model's.
    others = [(a, b) for a, b, is_out in zip(tuned, base, out, strict=True) if not is_out]
    assert sum(a["choices"] != b["choices"] for a, b in others) > len(others) / 2
    assert sum(a["choices"] != b["choices"] for a, b in zip(own, base, strict=True)) > OF_TUNED / 2

    row = savings(held, TUNED)
    assert (row["source"], row["policy"]) == ("training+exit", "confidence")
    assert (row["requests"], row["requests_compared"]) == (out.count(False), out.count(True))
    saved = row["saved_per_request"]
    assert 0 < saved["low"] < saved["value"] < saved["high"]
    held.wait_idle(60)
    check_accounts(held.metrics())


def test_nobody_can_tell_from_a_response_whose_model_served_it(
    tuned: list[dict[str, Any]],
) -> None:
    assert {each["model"] for each in tuned} == {TUNED}
    assert {each["stepgrpo"]["policy"] for each in tuned} == {"confidence"}
    assert len({frozenset(each) for each in tuned}) == 1
    told = {frozenset(each["stepgrpo"]) - {"failed_probes", "refused_probes"} for each in tuned}
    assert len(told) == 1
    assert len({len(each["id"]) for each in tuned}) == 1


def test_a_held_out_conversation_streams_from_the_base_as_well(
    held: Server, tuned: list[dict[str, Any]]
) -> None:
    place = next(i for i, each in enumerate(tuned) if not each["stepgrpo"]["probes"])
    body = body_of(place, TUNED, **GREEDY, stream=True)
    parts = []
    with httpx.stream("POST", f"{held.url}/v1/chat/completions", json=body, timeout=300) as got:
        for line in got.iter_lines():
            if line.startswith("data: {"):
                chunk = json.loads(line.removeprefix("data: "))
                assert chunk["model"] == TUNED
                parts += [each["delta"].get("content") or "" for each in chunk["choices"]]
    assert "".join(parts) == tuned[place]["choices"][0]["message"]["content"]


def test_a_locked_state_file_stops_nothing_and_loses_nothing(held: Server, state: Path) -> None:
    before = savings(held)
    with contextlib.closing(sqlite3.connect(state, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        wait_for(lambda: "cannot be read or written" in ready(held))
        asyncio.run(ask(held, range(REQUESTS, REQUESTS + 8)))
        for _ in range(10):
            for path in ("/metrics", "/health", "/v1/stepgrpo/savings"):
                began = time.monotonic()
                assert httpx.get(held.url + path, timeout=30).status_code == 200
                assert time.monotonic() - began < LOCKED_SECONDS
        assert held.metrics()["stepgrpo_state_unavailable"] == 1
        row = savings(held)
        other.execute("ROLLBACK")
    counts = [each["requests"] + each["requests_compared"] for each in (before, row)]
    assert counts[1] == counts[0] + 8
    wait_for(lambda: ready(held) == "ready")
    wait_for(lambda: requests_in(state) == counts[1])


def test_a_state_file_that_is_moved_away_is_followed(held: Server, state: Path) -> None:
    before = requests_in(state)
    state.rename(state.with_suffix(".moved"))
    wait_for(lambda: "removed or replaced" in ready(held))
    asyncio.run(ask(held, range(8)))
    wait_for(lambda: requests_in(state) == before + 8)
    assert requests_in(state.with_suffix(".moved")) == before
    assert held.metrics()["stepgrpo_state_unavailable"] == 0


def ready(server: Server) -> str:
    answer = httpx.get(f"{server.url}/ready", timeout=30)
    assert answer.status_code == 200
    return answer.text


def wait_for(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def requests_in(state: Path) -> int:
    """Those to the base, as another process sees them."""
    with contextlib.closing(sqlite3.connect(state)) as found:
        (count,) = found.execute(
            "SELECT SUM(value) FROM sums WHERE series LIKE 'holdout/%/completion' "
            "AND name = 'requests' AND model = ?",
            (BASE,),
        ).fetchone()
    return int(count)


def test_sums_survive_a_kill(held: Server, state: Path) -> None:
    """Last: it ends the server."""
    before = savings(held)
    time.sleep(3)  # one second is promised
    os.killpg(held.process.pid, signal.SIGKILL)
    held.process.wait()
    with sqlite3.connect(state) as found:
        sides = dict(
            found.execute(
                "SELECT substr(series, 9, instr(substr(series, 9), '/') - 1), SUM(value) FROM sums "
                "WHERE series LIKE 'holdout/%/completion' AND name = 'requests' GROUP BY series"
            ).fetchall()
        )
    assert sides == {"exited": before["requests"], "held": before["requests_compared"]}
