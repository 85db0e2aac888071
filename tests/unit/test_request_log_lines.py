"""Lines of the request log, made by hand, and the journal that writes them."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from vllm.sampling_params import RequestOutputKind, SamplingParams

from service.engine.observer import RequestObserver
from service.engine.request import EngineRequest
from service.records.log_line import MAX_ID, logged_id, to_log_line
from service.records.log_writer import RequestLog
from service.records.sequence import Saved, SequenceRecord
from service.records.timeline import MAX_PROBES, Start, Timeline
from stepgrpo_core import ExitReason, Outcome
from stepgrpo_core.savings.holdout import Arm

# By hand.


def timeline(request_id: str = "chatcmpl-x", **moments: float) -> Timeline:
    made = Timeline(request_id, Start(100.0, 1_700_000_000_000_000_000))
    made.ended = 102.0
    for name, moment in moments.items():
        setattr(made, name, moment)
    return made


def record(**changes: Any) -> SequenceRecord:
    made = SequenceRecord(1, "m", "confidence", 20, settings={"exit_pattern": "hush"})
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def test_a_line_says_it_all_and_no_more() -> None:
    outcome = Outcome(ExitReason.CONFIDENT, 2, 100, 2, 1, (0.2, 0.97531), None)
    made = record(
        outcome=outcome,
        status="completed",
        finish_reason="stop",
        generated_tokens=130,
        injected_tokens=3,
        discarded_tokens=10,
        delivered_tokens=120,
        probe_tokens=12,
        judge_tokens=5,
        saved=Saved(44, 2, 100, 32),
        arm=Arm(control=True, group=3),
    )
    assert to_log_line(made, timeline(first_token=100.5, thought=101.0, answer=101.25)) == {
        "time": "2023-11-14T22:13:22.000Z",
        "id": "chatcmpl-x",
        "index": 1,
        "model": "m",
        "policy": "confidence",
        "label": "holdout",
        "exit_reason": "confident",
        "shadow_reason": None,
        "abstained": None,
        "outcome": "completed",
        "finish_reason": "stop",
        "steps": 2,
        "prompt_tokens": 20,
        "reasoning_tokens": 100,
        "completion_tokens": 120,
        "injected_tokens": 3,
        "discarded_tokens": 10,
        "aborted_tokens": 3,
        "probe_tokens": 12,
        "judge_tokens": 5,
        "probes": 2,
        "refused_probes": 0,
        "failed_probes": 1,
        "confidence": 0.9753,
        "saved": {
            "tokens": 44,
            "low": 2,
            "high": 100,
            "net": 32,
            "method": "predicted",
            "stale": False,
        },
        "seconds": {
            "queue": None,
            "first_token": 0.5,
            "thinking": 0.5,
            "first_answer_token": 1.25,
            "answer": 1.0,
            "total": 2.0,
        },
        "timeline": [
            {"at": 0.0, "event": "arrived", "prompt_tokens": 20},
            {"at": 0.5, "event": "first_token"},
            {
                "at": 1.0,
                "event": "thinking_end",
                "reason": "confident",
                "reasoning_tokens": 100,
            },
            {"at": 1.25, "event": "answer"},
            {"at": 2.0, "event": "end", "outcome": "completed"},
        ],
    }


def test_a_sequence_without_thinking_answers_from_its_first_token_on() -> None:
    for outcome in (None, Outcome(ExitReason.NONE, 0, 0, 0, 0, (), None)):
        seconds = to_log_line(record(outcome=outcome), timeline(first_token=100.5))["seconds"]
        assert (seconds["thinking"], seconds["answer"]) == (None, 1.5)
        assert seconds["first_answer_token"] == 0.5


def test_one_that_never_began_has_a_line_all_the_same() -> None:
    line = to_log_line(record(status="failed"), timeline())
    assert [event["event"] for event in line["timeline"]] == ["arrived", "end"]
    assert line["seconds"]["first_token"] is None


@pytest.mark.parametrize(
    ("engine", "response"),
    [
        ("chatcmpl-1f", "chatcmpl-1f"),
        ("chatcmpl-my_7", "chatcmpl-my_7"),
        ("cmpl-1f-0", "cmpl-1f"),
        ("cmpl-my-7-12", "cmpl-my-7"),
        ("resp_1f_0", "resp_1f"),
        ("mine_0", "mine"),
        ("chatcmpl-a\nb_1", "chatcmpl-a\nb_1"),
        ("chatcmpl-" + "x" * 9999, "chatcmpl-" + "x" * (MAX_ID - 9)),
    ],
)
def test_the_id_is_the_one_that_the_response_has(engine: str, response: str) -> None:
    assert logged_id(engine) == response


def test_probes_that_are_remembered_are_bounded() -> None:
    made = timeline()
    for number in range(3 * MAX_PROBES):
        assert made.probe_started(number) == {}
        made.probe_answered(number)
    assert len(made.probes) == MAX_PROBES
    assert len(to_log_line(record(), made)["timeline"]) == MAX_PROBES + 2


# The journal.


def request(**options: Any) -> EngineRequest:
    params = SamplingParams(output_kind=RequestOutputKind.CUMULATIVE)
    return EngineRequest("chatcmpl-x", {"prompt_token_ids": [1]}, params, options)


def test_without_a_log_times_are_noted_and_no_text() -> None:
    made, asked = record(), request()
    journal = RequestObserver(with_text=True)
    assert journal.begin(asked, [made], 0.0) is asked
    assert (made.timeline.start.moment, made.timeline.texts) == (0.0, None)
    journal.end([made])
    journal.close()


def test_the_journal_writes_each_sequence_when_its_request_has_ended(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = RequestLog(path)
    log.start(lambda lines: pytest.fail(f"{lines} lost"))
    journal = RequestObserver(log, with_text=True)
    records = [record(index=index, status="completed") for index in range(2)]
    asked = request()
    assert journal.begin(asked, records, 0.0) is asked
    for each, text in itertools.product(records, ("a", "ab")):  # cumulative: the last has it all
        assert each.timeline.texts is not None
        each.timeline.texts.append(text)
    journal.end(records)
    journal.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["index"], line["text"]) for line in lines] == [(0, "ab"), (1, "ab")]
    assert "hush" not in path.read_text(), "a request's pattern is a client's text"


def test_what_cannot_be_told_fails_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = RequestLog(tmp_path / "log.jsonl")
    log.start(lambda lines: pytest.fail(f"{lines} lost"))
    journal = RequestObserver(log)
    broken, whole = record(saved="nothing of the kind"), record()
    journal.begin(request(), [broken, whole], 0.0)
    journal.end([broken, whole])
    journal.close()
    (line,) = (tmp_path / "log.jsonl").read_text().splitlines()
    assert "text" not in json.loads(line)
    assert "'chatcmpl-x' cannot be reported: TypeError" in caplog.text
