"""Traces, and the exemplars of metrics that lead to them."""

import time
from pathlib import Path

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.support.journal import PARENT, SECONDS, TRACE, chat, exited
from tests.support.observing.collector import Collector, Span
from tests.support.observing.prometheus import exemplars, query, scraping, wait_scrapes
from tests.support.servers import Server

pytestmark = [pytest.mark.integration, pytest.mark.slow]


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
    for name in ("completion_tokens", "output_tokens"):
        assert request.attributes[f"gen_ai.usage.{name}"] == usage["completion_tokens"]
    reasoning = usage["completion_tokens_details"]["reasoning_tokens"]
    assert request.attributes["gen_ai.usage.reasoning.output_tokens"] == reasoning
    assert request.attributes["gen_ai.operation.name"] == "chat"
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
