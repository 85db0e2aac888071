"""The request log, `explain` and traces of a real server, which has an API key."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from vllm.sampling_params import RequestOutputKind

from service.requestlog.journal import Journal
from service.requestlog.writer import RequestLog
from tests.integration.collector import Collector, Span
from tests.integration.engines import Machine
from tests.integration.prometheus import exemplars, query, scraping, wait_scrapes
from tests.integration.servers import CALIBRATED, OURS, ROOT, Server, running, total
from tests.integration.test_finishing import chat_body, id_in, wished
from tests.integration.test_server import EXIT, PROBLEMS, TOKENIZER, messages

pytestmark = pytest.mark.integration

KEY = "canary-in-the-api-key"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SECONDS = 30.0
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("journal") / "requests.jsonl"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector().serving() as up:
        yield up


@pytest.fixture(scope="module")
def logged(path: Path, collector: Collector) -> Iterator[Server]:
    tracing = ("--exit-log", str(path), "--otlp-traces-endpoint", collector.url)
    flags = (*tracing, "--api-key", KEY, "--open-metrics")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf")
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")  # milliseconds
        with running(OURS, path.with_name("server.log"), *flags, *CALIBRATED) as up:
            yield up


@pytest.fixture
def client(logged: Server) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=logged.url, headers=headers, timeout=120) as made:
        yield made


def body_of(index: int = 0, xargs: Any = EXIT, **more: Any) -> dict[str, Any]:
    body = {"model": "demo-base", "messages": messages(index), "max_tokens": 900, "seed": 0}
    return body | {"temperature": 0, "vllm_xargs": xargs} | more


def chat(client: httpx.Client, index: int = 0, xargs: Any = EXIT, **more: Any) -> httpx.Response:
    headers = more.pop("headers", {})
    answer = client.post(CHAT, json=body_of(index, xargs, **more), headers=headers)
    assert answer.status_code == 200, answer.text
    return answer


def exited(client: httpx.Client, **more: Any) -> httpx.Response:
    """The response to a problem whose thinking the policy cuts."""
    for index in range(len(PROBLEMS)):
        answer = chat(client, index, **more)
        if answer.json()["stepgrpo"]["exit_reason"] == "confident":
            return answer
    raise AssertionError("no problem was exited")


def lines(path: Path) -> list[dict[str, Any]]:
    text = path.read_text() if path.is_file() else ""
    return [json.loads(line) for line in text.splitlines() if line]


def lines_of(path: Path, name: str, count: int = 1) -> list[dict[str, Any]]:
    """The lines of a request, once they are there."""
    deadline = time.monotonic() + SECONDS
    while len(found := [line for line in lines(path) if line["id"] == name]) < count:
        assert time.monotonic() < deadline, f"{len(found)} lines of {name}"
        time.sleep(0.05)
    assert len(found) == count
    return found


def explain(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "service.cli", "explain", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


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
    assert {line["index"] for line in lines_of(path, completion["id"], 2)} == {0}
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


# Traces.


def below(trace: str) -> dict[str, str]:
    """The header of a client that traces."""
    return {"traceparent": f"00-{trace}-{PARENT}-01"}


def by_name(spans: list[Span]) -> dict[str, list[Span]]:
    found: dict[str, list[Span]] = {}
    for span in spans:
        found.setdefault(span.name, []).append(span)
    return found


def test_spans_hang_below_the_clients(client: httpx.Client, collector: Collector) -> None:
    response = exited(client, headers=below(TRACE)).json()
    block = response["stepgrpo"]
    name = response["id"]

    def complete(spans: list[Span]) -> bool:
        return any(span.attributes.get("gen_ai.request.id") == name for span in spans)

    spans = collector.wait(TRACE, complete)
    # Other problems may have gone before, in the same trace.
    (request,) = [span for span in spans if span.attributes.get("gen_ai.request.id") == name]
    assert (request.name, request.parent) == ("stepgrpo.request", PARENT)
    children = by_name([span for span in spans if span.parent == request.id])
    (thinking,), (answer,) = children["stepgrpo.thinking"], children["stepgrpo.answer"]
    probes = children["stepgrpo.probe"]
    assert len(probes) == block["probes"]
    assert set(children) <= {
        "stepgrpo.thinking",
        "stepgrpo.probe",
        "stepgrpo.answer",
        "llm_request",
    }

    # vLLM's own: one below each probe, one below the answer; of the main stream that was cut, none.
    def own(spans: list[Span]) -> dict[str, list[Span]]:
        return {
            parent.id: [s for s in spans if s.name == "llm_request" and s.parent == parent.id]
            for parent in (*probes, answer)
        }

    spans = collector.wait(TRACE, lambda spans: all(own(spans).values()))
    assert [len(found) for found in own(spans).values()] == [1] * (len(probes) + 1)
    assert request.begin <= thinking.begin < thinking.end <= answer.begin < answer.end
    assert answer.end <= request.end
    for probe in probes:
        assert thinking.begin <= probe.begin <= probe.end
        (made,) = own(spans)[probe.id]
        assert probe.begin <= made.begin <= made.end
    for span in (request, thinking):
        assert span.attributes["stepgrpo.exit_reason"] == "confident"
        assert span.attributes["stepgrpo.reasoning_tokens"] == block["reasoning_tokens"]
    assert request.attributes["gen_ai.response.model"] == "demo-base"
    assert request.attributes["stepgrpo.policy"] == "confidence"
    usage = response["usage"]
    assert request.attributes["gen_ai.usage.completion_tokens"] == usage["completion_tokens"]
    assert thinking.attributes["stepgrpo.confidence"] == pytest.approx(
        block["confidence"], abs=1e-4
    )
    assert [span.attributes["stepgrpo.result"] for span in probes][-1] == "fired"


OPENMETRICS = {"accept": "application/openmetrics-text; version=1.0.0"}


def test_figures_lead_to_traces(
    client: httpx.Client, logged: Server, tmp_path: Path, collector: Collector
) -> None:
    """In a scrape, and in a Prometheus that has scraped; of a trace that is there."""
    trace = f"{TRACE[:-4]}beef"
    with scraping(logged, tmp_path) as prometheus:
        exited(client, headers=below(trace))
        answer = client.get("/metrics", headers=OPENMETRICS)
        assert answer.headers["content-type"].startswith("application/openmetrics-text")
        found = {
            (sample.name, sample.exemplar.labels["trace_id"])  # other requests have theirs
            for each in text_string_to_metric_families(answer.text)
            for sample in each.samples
            if sample.exemplar is not None
        }
        for name in ("reasoning_tokens_total", "saved_tokens_total", "reasoning_steps_bucket"):
            assert (f"stepgrpo_{name}", trace) in found
        wait_scrapes(prometheus, 2)
        kept = exemplars(prometheus, "stepgrpo_reasoning_tokens_total")
        assert {"trace_id": trace} in [each["labels"] for each in kept]
        assert query(prometheus, "vllm:generation_tokens_total")
    collector.wait(trace, bool)
    plain = client.get("/metrics")
    assert plain.headers["content-type"].startswith("text/plain")
    assert trace not in plain.text


def test_without_an_exit_the_main_stream_hangs_below_the_request(
    client: httpx.Client, collector: Collector
) -> None:
    trace = TRACE[::-1]
    never = {"exit_policy": "budget", "exit_budget_tokens": 800}
    chat(client, 0, never, headers=below(trace))
    spans = collector.wait(trace, lambda spans: len(spans) == 4)
    found = by_name(spans)
    (request,) = found["stepgrpo.request"]
    assert {span.parent for span in spans if span is not request} == {request.id}
    assert set(found) == {"stepgrpo.request", "stepgrpo.thinking", "stepgrpo.answer", "llm_request"}
    assert request.attributes["stepgrpo.exit_reason"] == "natural"


def test_without_a_clients_trace_each_request_is_one(
    client: httpx.Client, collector: Collector
) -> None:
    name = chat(client, 0, {"exit_policy": "none"}).json()["id"]
    deadline = time.monotonic() + SECONDS
    while not (
        found := [s for s in collector.spans if s.attributes.get("gen_ai.request.id") == name]
    ):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (request,) = found
    assert request.parent == ""
    spans = collector.wait(request.trace, lambda spans: len(spans) >= 2)
    (made,) = [span for span in spans if span.name == "llm_request"]
    assert made.parent == request.id


# Faults.


def test_f19_canaries_are_found_nowhere(
    logged: Server, client: httpx.Client, path: Path, collector: Collector
) -> None:
    """Of prompt, reasoning, answer, pattern and API key, in log, traces, metrics, server's log and
    the messages of errors."""
    canary = "canary in the prompt"
    asked = [{"role": "system", "content": canary}, *messages(0)]
    answers = [
        exited(client).json(),
        chat(client, 0, EXIT | {"exit_policy": "pattern", "exit_pattern": "canary.*"}).json(),
        chat(client, messages=asked).json(),
    ]
    secrets = [canary, KEY, "canary.*", PROBLEMS[0].prompt]
    for answer in answers:
        message = answer["choices"][0]["message"]
        text = (message["reasoning"] or "") + (message["content"] or "")
        secrets += [line for line in text.splitlines() if len(line) > 5]
    assert len(secrets) > 8
    bad = body_of(0, {"exit_policy": "confidense"}, messages=asked)
    long = body_of(0, messages=[{"role": "user", "content": f"{canary} " * 2000}])
    errors = [
        client.post(CHAT, json=bad),
        client.post(CHAT, json=long),
        client.post(CHAT, json=body_of(0, messages=asked, model="other")),
        client.post(CHAT, json=body_of(0, messages=asked, temperature=-3)),
        client.post(CHAT, json=bad, headers={"Authorization": f"Bearer not-{KEY}"}),
        client.post(f"{CHAT}/chatcmpl-x/finish-thinking"),
    ]
    assert [error.status_code for error in errors] == [400, 400, 404, 400, 401, 404]
    lines_of(path, answers[-1]["id"])
    collector.wait(TRACE, bool)
    places = {
        "request log": path.read_text(),
        "metrics": "\n".join(logged.scrape()),
        "server's log": logged.log.read_text(),
        "traces": collector.raw.decode(errors="replace"),
        **{f"error {each.status_code}": each.text for each in errors},
    }
    assert "stepgrpo_requests_total" in places["metrics"]
    for place, text in places.items():
        found = [secret for secret in secrets if secret in text]
        assert not found, place


def test_the_log_follows_its_name(client: httpx.Client, path: Path) -> None:
    moved = path.with_suffix(".1")
    first = chat(client).json()["id"]
    lines_of(path, first)
    path.rename(moved)
    second = chat(client).json()["id"]
    lines_of(path, second)
    assert [line["id"] for line in lines(path)] == [second]
    assert lines(moved)[-1]["id"] == first


def test_f21_a_full_disk_fails_no_request(logged: Server, client: httpx.Client, path: Path) -> None:
    kept, other = path.with_suffix(".2"), path.with_suffix(".new")
    path.rename(kept)
    path.symlink_to("/dev/full")
    for index in range(5):
        chat(client, index)
    deadline = time.monotonic() + SECONDS
    while logged.metrics()["stepgrpo_log_lines_dropped_total"] < 5:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    other.symlink_to(path.with_suffix(".3"))
    other.rename(path)
    name = chat(client).json()["id"]
    lines_of(path, name)
    assert logged.metrics()["stepgrpo_log_lines_dropped_total"] == 5
    assert "No space left on device; lines are dropped" in logged.log.read_text()


def test_what_runs_when_the_server_is_stopped_has_its_line(
    logged: Server, client: httpx.Client, path: Path
) -> None:
    """The last test of this server."""
    with client.stream("POST", CHAT, json=body_of(4, stream=True)) as response:
        events = response.iter_lines()
        name = json.loads(next(events).removeprefix("data: "))["id"]
        logged.process.send_signal(signal.SIGTERM)
        assert list(events)[-2] == "data: [DONE]"
    assert logged.process.wait(SECONDS) == 0
    (line,) = lines_of(path, name)
    assert line["outcome"] == "completed"


# In this process.


@pytest.mark.parametrize("kind", [RequestOutputKind.DELTA, RequestOutputKind.FINAL_ONLY])
@pytest.mark.parametrize("policy", ["none", "confidence"])
def test_the_text_is_in_the_log_where_it_was_asked_for(
    machine: Machine, tmp_path: Path, kind: RequestOutputKind, policy: str
) -> None:
    log = RequestLog(tmp_path / "log.jsonl")
    log.start(lambda lines: pytest.fail(f"{lines} lost"))
    ours = machine.ours(journal=Journal(log, with_text=True))
    ids, _ = machine.run(ours.ask(0, policy, seed=0, output_kind=kind, n=2, temperature=0.6))
    log.close()
    texts = [line["text"] for line in sorted(lines(tmp_path / "log.jsonl"), key=index_of)]
    assert texts == [TOKENIZER.decode(each, skip_special_tokens=True) for each in ids]
    assert all("\\boxed{" in text for text in texts)


def index_of(line: dict[str, Any]) -> int:
    index: int = line["index"]
    return index
