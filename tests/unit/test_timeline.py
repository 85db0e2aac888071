"""What the request log says of a sequence: over a scripted engine, and by hand."""

import asyncio
import json
import math
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pytest
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.v1.metrics.stats import RequestStateStats

from service.engine.controlled import ControlledRequest
from service.engine.passthrough import PassthroughRequest
from service.engine.request import EngineRequest, ServedModel
from service.load.probe_load import Load
from service.records.log_line import to_log_line
from service.records.sequence import SequenceRecord
from service.records.timeline import Start, Timeline
from stepgrpo_core import ExitController, ExitSettings
from stepgrpo_core.families.thinking import tokenizer_format
from tests.support.models import TOKENIZER
from tests.support.service.thinking import PROMPT, THINKING

MAIN = "<think>\n1+1=2. So 2.\n\nWait, again. 2.\n\nWait, so 2.\n</think>\n\nThe final answer is 2."
ANSWER = "The final answer is 2. Done."
TRIAL = "{2}\n</think>"
EVENTS = ("arrived", "first_token", "probe", "cut", "thinking_end", "closing", "answer", "end")
STATS = RequestStateStats(queued_ts=3.0, scheduled_ts=3.25, first_token_latency=1e-5)


class Engine:
    """Generates the thinking, trials and the answer; probes fail from the `broken`-th on."""

    def __init__(self, confidences: Sequence[float], *, broken: int = 99) -> None:
        self.confidences = iter(confidences)
        self.broken = broken
        self.aborted: set[str] = set()
        self.options: dict[str, Mapping[str, Any]] = {}

    async def abort(self, request_id: str) -> None:
        self.aborted.add(request_id)

    async def generate(
        self, prompt: Mapping[str, Any], params: SamplingParams, request_id: str, **options: Any
    ) -> AsyncIterator[RequestOutput]:
        self.options[request_id] = options
        if "-probe-" in request_id:
            self.broken -= 1
            if self.broken < 0:
                raise ValueError("the probe is lost")
            yield trial(next(self.confidences))
            return
        ids = TOKENIZER.encode(MAIN if prompt["prompt_token_ids"] == PROMPT else ANSWER)
        if params.output_kind is RequestOutputKind.FINAL_ONLY:
            yield output(ids, "stop")
            return
        for place, token in enumerate(ids, start=1):
            await asyncio.sleep(0.001)
            if request_id in self.aborted:
                yield output([], "abort")
                return
            yield output([token], "stop" if place == len(ids) else None)


def output(ids: list[int], finish: str | None, logprobs: Any = None) -> RequestOutput:
    completion = CompletionOutput(
        0, TOKENIZER.decode(ids), ids, None, logprobs, finish_reason=finish
    )
    return RequestOutput(
        "r", None, PROMPT, None, [completion], finished=finish is not None, metrics=STATS
    )


def trial(confidence: float) -> RequestOutput:
    ids = TOKENIZER.encode(TRIAL)
    value = type("Logprob", (), {"logprob": math.log(confidence)})()
    return output(ids, "stop", [{token: value} for token in ids])


def run(
    engine: Any,
    policy: str = "confidence",
    *,
    kind: RequestOutputKind = RequestOutputKind.DELTA,
    texts: bool = False,
    leave_after: int = 10_000,
    **settings: Any,
) -> dict[str, Any]:
    """The line of one sequence."""
    asked = ExitSettings(policy=policy, answer_reserve=0, min_interval=0, **settings)
    params = SamplingParams(max_tokens=200, output_kind=kind)
    load = Load(capacity=8, share=1.0)
    served = ServedModel(engine, TOKENIZER, tokenizer_format(TOKENIZER, THINKING), load)
    record = SequenceRecord(0, "m", policy, len(PROMPT))
    record.timeline = Timeline("chatcmpl-x", Start.at(0.0), texts=deque() if texts else None)
    record.timeline.start = Start.at(record.timeline.submitted)

    async def collect() -> None:
        controller = ExitController(asked, THINKING, max_tokens=200)
        request = EngineRequest("chatcmpl-x", {"prompt_token_ids": PROMPT}, params, {})
        if policy == "none":
            run: Any = PassthroughRequest(
                served, request, [record], [controller], obstacle=lambda: None
            )
        else:
            run = ControlledRequest(served, request, [record], [controller])
        record.status = "aborted"
        async for each in run.outputs():
            record.delivered_tokens += len(each.outputs[0].token_ids)
            if record.timeline.texts is not None:
                record.timeline.texts.append(each.outputs[0].text)
            if each.finished:
                record.status, record.finish_reason = "completed", each.outputs[0].finish_reason
            if record.delivered_tokens >= leave_after:
                break
        await run.close()

    asyncio.run(collect())
    assert isinstance(record.timeline, Timeline)
    line = to_log_line(record, record.timeline)
    assert json.loads(json.dumps(line)) == line
    check_order(line)
    return line


def check_order(line: Mapping[str, Any]) -> None:
    """What comes after something else comes later."""
    events = line["timeline"]
    assert {event["event"] for event in events} <= set(EVENTS)
    assert [event["at"] for event in events] == sorted(event["at"] for event in events)
    assert (events[0]["event"], events[0]["at"]) == ("arrived", 0)
    assert (events[-1]["event"], events[-1]["at"]) == ("end", line["seconds"]["total"])
    for probe in of(line, "probe"):
        assert probe["answered"] is None or probe["answered"] >= probe["at"]


def of(line: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    return [event for event in line["timeline"] if event["event"] == name]


def test_an_exit_has_its_probes_its_cut_and_its_answer() -> None:
    line = run(Engine([0.2, 0.99]))
    names = [event["event"] for event in line["timeline"]]
    order = ["arrived", "first_token", "probe", "probe", "cut", "closing", "answer", "end"]
    assert names == order
    declined, fired = of(line, "probe")
    assert (declined["result"], declined["confidence"]) == ("declined", 0.2)
    assert (fired["result"], fired["confidence"]) == ("fired", 0.99)
    assert [probe["steps"] for probe in (declined, fired)] == [1, 2]
    assert [probe["policy"] for probe in (declined, fired)] == ["confidence"] * 2
    (cut,) = of(line, "cut")
    assert declined["at"] < declined["answered"] < fired["answered"] <= cut["at"]
    assert cut["reason"] == line["exit_reason"] == "confident"
    # The closing's first token is thinking still.
    assert fired["reasoning_tokens"] + 1 == line["reasoning_tokens"] == cut["reasoning_tokens"]
    assert line["discarded_tokens"] == cut["discarded_tokens"]
    assert (line["outcome"], line["finish_reason"]) == ("completed", "stop")
    seconds = line["seconds"]
    assert seconds["queue"] == 0.25
    spent = seconds["first_token"] + seconds["thinking"] + seconds["answer"]
    assert spent == pytest.approx(seconds["total"], abs=1e-4)
    assert "text" not in line


def test_an_end_by_itself_has_no_cut() -> None:
    line = run(Engine([0.2, 0.2]))
    names = [event["event"] for event in line["timeline"] if event["event"] != "probe"]
    assert names == ["arrived", "first_token", "thinking_end", "answer", "end"]
    (end,) = of(line, "thinking_end")
    assert end["reason"] == line["exit_reason"] == "natural"
    assert [probe["result"] for probe in of(line, "probe")] == ["declined"] * 2
    assert min(line["seconds"].values()) > 0


def test_probes_that_fail_and_probes_that_are_refused_say_so() -> None:
    failed = run(Engine([], broken=0))
    assert [probe["result"] for probe in of(failed, "probe")] == ["failed"] * 2
    assert failed["failed_probes"] == 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Load, "waiting", 1)
        refused = run(Engine([]))
    assert [probe["result"] for probe in of(refused, "probe")] == ["refused"] * 2
    assert {probe["cause"] for probe in of(refused, "probe")} == {"queue"}
    assert (refused["refused_probes"], refused["probes"]) == (2, 0)


def test_a_question_that_another_decision_made_needless_is_unused() -> None:
    """The first probe answers once the second is under way, and the second never does."""

    class Slow(Engine):
        second: asyncio.Event

        async def generate(self, prompt: Any, params: Any, request_id: str, **options: Any) -> Any:
            if "-run-" in request_id:
                self.second = asyncio.Event()
            elif self.broken == 99:  # the first probe
                self.broken -= 1
                await self.second.wait()
            else:
                self.second.set()
                while request_id not in self.aborted:  # noqa: ASYNC110 - as streams end here
                    await asyncio.sleep(0.001)
                yield output([], "abort")
                return
            async for each in Engine.generate(self, prompt, params, request_id, **options):
                yield each

    line = run(Slow([0.99]))
    fired, unused = of(line, "probe")
    assert (fired["result"], unused["result"]) == ("fired", "unused")


def test_in_shadow_mode_what_fired_cut_nothing() -> None:
    line = run(Engine([0.99, 0.99]), shadow=True)
    assert of(line, "probe")[0]["result"] == "fired"
    assert (line["shadow_reason"], line["exit_reason"]) == ("confident", "natural")
    assert not of(line, "cut")


def test_policy_none_has_the_moments_of_its_stream() -> None:
    line = run(Engine([]), "none")
    assert [event["event"] for event in line["timeline"]] == [
        *("arrived", "first_token", "thinking_end", "answer", "end")
    ]
    thinking, answer = line["seconds"]["thinking"], line["seconds"]["answer"]
    # A millisecond each, or more: nothing was read late.
    assert thinking > 0.001 * 20
    assert answer > 0.001 * len(TOKENIZER.encode("The final answer is 2."))


def test_a_response_that_comes_whole_has_no_moments_inside() -> None:
    line = run(Engine([]), "none", kind=RequestOutputKind.FINAL_ONLY)
    assert (line["seconds"]["thinking"], line["seconds"]["answer"]) == (None, None)
    assert line["seconds"]["first_token"] >= STATS.first_token_latency
    assert line["exit_reason"] == "natural"


def test_a_client_that_leaves_in_the_thinking_had_no_answer() -> None:
    line = run(Engine([0.2, 0.2]), leave_after=5)
    assert (line["outcome"], line["exit_reason"]) == ("aborted", "client")
    assert line["seconds"]["answer"] is None
    assert line["seconds"]["thinking"] > 0
    assert not of(line, "answer")
    assert line["completion_tokens"] == 5


def test_the_text_is_there_when_asked_for() -> None:
    assert run(Engine([]), "none", texts=True)["text"] == MAIN
    exited = run(Engine([0.99]), texts=True)["text"]
    assert exited == f"<think>\n1+1=2. So 2.\n\n\n</think>\n\n{ANSWER}"
