"""The request log and `explain`."""

import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from vllm.sampling_params import RequestOutputKind

from service.engine.observer import RequestObserver
from service.records.log_writer import RequestLog
from tests.support.chat import body_of, messages
from tests.support.engines import Machine
from tests.support.finishing import chat_body, id_in, wished
from tests.support.journal import (
    CHAT,
    KEY,
    SECONDS,
    chat,
    exited,
    explain,
    lines,
    lines_of,
)
from tests.support.models import TOKENIZER
from tests.support.servers import Server, total

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def test_a_line_says_what_the_response_says(client: httpx.Client, path: Path) -> None:
    answer = exited(client)
    response = answer.json()
    block, usage = response["stepgrpo"], response["usage"]
    (line,) = lines_of(path, response["id"])
    same = ("policy", "exit_reason", "steps", "reasoning_tokens", "probes", "probe_tokens", "saved")
    assert {name: line[name] for name in same} == {name: block[name] for name in same}
    assert (line["confidence"], line["saved"]["method"]) == (block["confidence"], "predicted")
    assert line["prompt_tokens"] == usage["prompt_tokens"]
    assert line["completion_tokens"] == usage["completion_tokens"]
    assert (line["model"], line["label"], line["index"]) == ("demo-base", "confidence", 0)
    assert (line["outcome"], line["finish_reason"]) == ("completed", "stop")
    probes = [event for event in line["timeline"] if event["event"] == "probe"]
    assert len(probes) == block["probes"]
    assert probes[-1]["result"] == "fired"
    assert probes[-1]["confidence"] == block["confidence"]
    seconds = line["seconds"]
    assert 0 < seconds["first_token"] < seconds["total"]
    spent = seconds["first_token"] + seconds["thinking"] + seconds["answer"]
    assert spent == pytest.approx(seconds["total"], abs=1e-4)
    assert 0 <= seconds["queue"] <= seconds["first_token"]


def test_headers_say_it_too_where_a_response_does_not_stream(client: httpx.Client) -> None:
    answer = exited(client)
    block = answer.json()["stepgrpo"]
    saved = block["saved"]
    assert {name: value for name, value in answer.headers.items() if "stepgrpo" in name} == {
        "x-stepgrpo-exit-reason": "confident",
        "x-stepgrpo-reasoning-tokens": str(block["reasoning_tokens"]),
        "x-stepgrpo-saved-tokens": f"{saved['tokens']}; low={saved['low']}; high={saved['high']}",
        "x-stepgrpo-saved-method": "predicted",
    }
    stream = chat(client, stream=True)
    assert not [name for name in stream.headers if "stepgrpo" in name]


def test_explain_tells_the_request(client: httpx.Client, path: Path) -> None:
    response = exited(client).json()
    (line,) = lines_of(path, response["id"])
    done = explain(response["id"], "--log", path)
    assert (done.returncode, done.stderr) == (0, "")
    for word in ("arrived", "first token", "fired, confidence", "thinking cut", "closing", "Saved"):
        assert word in done.stdout
    raw = explain(response["id"], "--log", path, "--format", "json")
    assert json.loads(raw.stdout) == line
    missing = explain("chatcmpl-nothing", "--log", path)
    assert missing.returncode == 1
    assert missing.stderr.startswith("stepgrpo-serve explain: ")


def test_every_sequence_has_its_line(client: httpx.Client, path: Path) -> None:
    two = chat(client, 1, n=2, temperature=0.8).json()
    choices = two["stepgrpo"]["choices"]
    found = sorted(lines_of(path, two["id"], 2), key=lambda line: line["index"])
    assert [each["index"] for each in found] == [0, 1]
    for line, choice in zip(found, choices, strict=True):
        assert line["reasoning_tokens"] == choice["reasoning_tokens"]
    assert explain(two["id"], "--log", path).stdout.count(f"{two['id']}, sequence") == 2
    none = chat(client, 2, {"exit_policy": "none"}, stream=True)
    name = json.loads(none.text.split("\n")[0].removeprefix("data: "))["id"]
    (line,) = lines_of(path, name)
    assert (line["policy"], line["exit_reason"]) == ("none", "natural")
    assert min(line["seconds"][part] for part in ("thinking", "answer")) > 0
    completion = client.post(
        "/v1/completions",
        json={"model": "demo-base", "prompt": ["1+1=", "2+2="], "max_tokens": 5},
    ).json()
    assert {line["index"] for line in lines_of(path, completion["id"], 2)} == {0, 1}
    for route, more in (("responses", {"input": "1+1="}), ("messages", {"messages": messages()})):
        body = {"model": "demo-base", "max_tokens": 8, "max_output_tokens": 8, **more}
        answer = client.post(f"/v1/{route}", json=body)
        assert answer.status_code == 200, answer.text
        lines_of(path, answer.json()["id"])


def test_a_client_that_leaves_has_one_as_well(client: httpx.Client, path: Path) -> None:
    with client.stream("POST", CHAT, json=body_of(3, stream=True)) as response:
        events = response.iter_lines()
        name = json.loads(next(events).removeprefix("data: "))["id"]
        for _ in range(8):
            next(events)
    (line,) = lines_of(path, name)
    assert line["outcome"] == "aborted"
    assert line["saved"] is None


def test_an_answer_that_a_client_wanted_at_once(logged: Server, path: Path) -> None:
    """Under policy none, whose stream a controlled sequence takes over."""
    found = wished(logged, chat_body(), keys=(KEY,))
    (line,) = lines_of(path, id_in(found.events))
    assert (line["policy"], line["exit_reason"]) == ("none", "client")
    names = [event["event"] for event in line["timeline"]]
    assert names == ["arrived", "first_token", "cut", "closing", "answer", "end"]
    assert line["reasoning_tokens"] == found.block["reasoning_tokens"]


def test_the_lines_add_up_to_the_metrics(logged: Server, client: httpx.Client, path: Path) -> None:
    chat(client)
    logged.wait_idle(SECONDS)
    metrics = logged.metrics()
    deadline = time.monotonic() + SECONDS
    while len(lines(path)) < total(metrics, "requests"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for name in ("completion", "reasoning", "injected", "discarded", "aborted"):
        logged_tokens = sum(line[f"{name}_tokens"] or 0 for line in lines(path))
        assert logged_tokens == total(metrics, f"{name}_tokens"), name
    # One more was generated at start.
    probes = sum(line["probe_tokens"] for line in lines(path))
    assert probes + 1 == total(metrics, "probe_tokens")
    assert metrics["stepgrpo_log_lines_dropped_total"] == 0


@pytest.mark.parametrize(
    "evil",
    [b'x\x85\xc2\x85"}{"id":"forged"}', b"\xe2\x80\xa8\xff", b"%0d%0a\\r\\n\tx", b"x" * 4000],
)
def test_a_request_id_forges_no_line(client: httpx.Client, path: Path, evil: bytes) -> None:
    before = path.read_bytes()
    chat(client, max_tokens=8, headers={"X-Request-Id": evil})
    deadline = time.monotonic() + SECONDS
    while (added := path.read_bytes()[len(before) :]).count(b"\n") < 1:
        assert time.monotonic() < deadline
    assert added.isascii()
    (line,) = map(json.loads, added.splitlines())
    assert line["id"].startswith("chatcmpl-")
    assert len(line["id"]) <= 512


@pytest.mark.parametrize("kind", [RequestOutputKind.DELTA, RequestOutputKind.FINAL_ONLY])
@pytest.mark.parametrize("policy", ["none", "confidence"])
def test_the_text_is_in_the_log_where_it_was_asked_for(
    machine: Machine, tmp_path: Path, kind: RequestOutputKind, policy: str
) -> None:
    log = RequestLog(tmp_path / "log.jsonl")
    log.start(lambda lines: pytest.fail(f"{lines} lost"))
    ours = machine.ours(journal=RequestObserver(log, with_text=True))
    ids, _ = machine.run(ours.ask(0, policy, seed=0, output_kind=kind, n=2, temperature=0.6))
    log.close()
    texts = [line["text"] for line in sorted(lines(tmp_path / "log.jsonl"), key=index_of)]
    assert texts == [TOKENIZER.decode(each, skip_special_tokens=True) for each in ids]
    assert all("\\boxed{" in text for text in texts)


def index_of(line: dict[str, Any]) -> int:
    index: int = line["index"]
    return index
