"""Batches of conversations: each is a conversation of its own, and the request log finds them."""

import json
from pathlib import Path
from typing import Any

import pytest
from vllm.sampling_params import SamplingParams

from service.engine.observer import RequestObserver
from service.engine.request import EngineRequest
from service.params import Effective
from service.params.apis import BATCH
from service.records.explain_command import find_lines
from service.records.log_writer import RequestLog
from service.records.sequence import RequestContext, SequenceRecord
from service.savings.conversations import conversation_of, conversations_of
from service.savings.measurement import SavingsMeasurement
from service.savings.plan import Plan
from service.savings.state.store import SumStore
from stepgrpo_core import ExitReason, Outcome
from tests.support.service.application import PROPER, Application

OPENINGS = [[{"role": "user", "content": f"{number}+1"}] for number in range(40)]


def test_each_conversation_of_a_batch_is_dealt_as_it_is_alone() -> None:
    body: dict[str, Any] = {"model": "m", "messages": OPENINGS}
    found = conversations_of(body)
    assert found == [conversation_of({"model": "m", "messages": each}) for each in OPENINGS]
    assert len(set(found)) == len(OPENINGS)
    assert conversations_of({"prompt": ["a", "b"]}) == [conversation_of({"prompt": ["a", "b"]})]
    for odd in ([], [1, []], None):
        assert len(conversations_of({"messages": odd})) == 1


def test_prompts_take_the_conversations_in_their_order() -> None:
    context = RequestContext(conversations=[b"a", b"b"])
    assert [context.conversation(context.next_prompt()) for _ in range(3)] == [b"a", b"b", b"b"]
    assert RequestContext().conversation(0) is None


def test_a_batch_takes_part_in_the_holdout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    application = Application()
    engine = application.engine
    engine.savings = SavingsMeasurement(Plan(holdout=0.5), SumStore(tmp_path / "sums"))
    placed: list[bool] = []
    deal = engine.savings.assign_arm

    def place(request: EngineRequest, effective: Effective, conversation: bytes | None) -> Any:
        found = deal(request, effective, conversation)
        placed.append(found is not None and found.control)
        return found

    monkeypatch.setattr(engine.savings, "assign_arm", place)
    asked = application.ask(BATCH, PROPER[BATCH] | {"messages": OPENINGS})
    application.close()
    engine.savings.close()
    assert asked.status == 200
    assert len(placed) == len(OPENINGS)
    assert 8 < sum(placed) < 32


def test_the_log_finds_a_batch_by_the_id_of_its_response(tmp_path: Path) -> None:
    log = RequestLog(tmp_path / "log")
    log.start(lambda *_: None)
    journal = RequestObserver(log)

    for number in range(2):
        request = EngineRequest(
            f"chatcmpl-abc_{number}", {"prompt_token_ids": [1]}, SamplingParams(), {}
        )
        record = SequenceRecord(0, "m", "none", 1, first=number)
        record.outcome = Outcome(ExitReason.NATURAL, 1, 2, 0, 0, (), None)
        record.status = "completed"
        journal.begin(request, [record], 0.0, batch=True)
        journal.end([record])
    journal.close()
    found, _ = find_lines(tmp_path / "log", "chatcmpl-abc")
    assert [json.loads(each.raw)["index"] for each in found] == [0, 1]


def test_choices_of_several_prompts_are_told_apart() -> None:
    def record(index: int, first: int, steps: int) -> SequenceRecord:
        made = SequenceRecord(index, "m", "none", 1, first=first)
        made.outcome = Outcome(ExitReason.NATURAL, steps, 2, 0, 0, (), None)
        return made

    context = RequestContext()
    context.sequences = [record(0, 0, 1), record(0, 2, 3), record(1, 0, 2), record(1, 2, 4)]
    block = context.as_block()
    assert block is not None
    assert [(each["index"], each["steps"]) for each in block["choices"]] == [
        *((0, 1), (1, 2), (2, 3), (3, 4))
    ]
