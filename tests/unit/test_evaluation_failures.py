"""Records of real completions, and the page of those that are not correct."""

import html.parser
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from stepgrpo_core import ExitReason, Outcome
from tests.support.servers import MODEL
from tests.support.training.records import record
from training.evaluation import failures
from training.evaluation.failures import write_failures
from training.evaluation.records import Record, append_questions, read_records
from training.evaluation.tasks import Question
from training.evaluation.writer import TAIL, Writer, Writing
from training.grading import Grader
from training.rollouts.batch import Rollout, RolloutRequest, Sampling
from training.rollouts.vllm_engine import format_of

TOKENIZER = AutoTokenizer.from_pretrained(MODEL)
THINKING = format_of(TOKENIZER, "\n</think>\n\n").thinking
QUESTIONS = [
    Question("00001", "1+1?", "2", (("level", "1"),)),
    Question("00002", "<b>2+2</b> & more?", "4"),
]


def rollout(place: int, text: str) -> Rollout:
    ids = tuple(TOKENIZER.encode(text, add_special_tokens=False))
    outcome = Outcome(ExitReason.NATURAL, 1, 2, 0, 0, (), None)
    none, drawn = (None,) * len(ids), (False,) * len(ids)
    return Rollout((1,), ids, none, drawn, outcome, False, True, 0, 0, place)


def written(path: Path, *texts: str, keep: bool = False) -> list[Record]:
    requests = [RolloutRequest((1,), Sampling(9, seed=place)) for place in range(4)]
    with Grader(seconds=60) as grader:
        writing = Writing(path, TOKENIZER, THINKING, grader, keep)
        wrote: list[int] = []
        writer = Writer(writing, QUESTIONS, requests, wrote.append)
        for place in (3, 0, 2, 1):
            writer.take(rollout(place, texts[place]))
        writer.close()
    assert sum(wrote) == 2
    return read_records(path)


def test_records_hold_the_extracted_answer_the_votes_and_the_end_of_what_is_wrong(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.jsonl"
    append_questions(path, [[record(9)]])  # stands for the head
    found = written(
        path,
        *("<think>x</think>\\boxed{2}", "<think>x</think>\\boxed{2.0}"),
        *("<think>x</think>\\boxed{5}", "<think>\\boxed{4}" + " wait" * TAIL),
    )
    assert [each.answer for each in found] == ["2", "2.0", "5", None]
    assert [each.same_as for each in found] == [0, 0, 0, None]
    assert [each.correct for each in found] == [True, True, False, False]
    assert [each.groups for each in found] == [(("level", "1"),)] * 2 + [()] * 2
    assert [each.tail is None for each in found] == [True, True, False, False]
    assert len(found[3].tail or "") == TAIL
    assert found[2].tail == "<think>x</think>\\boxed{5}"
    assert '"level":"1"' in path.read_text()


class Tags(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: Any) -> None:  # noqa: ARG002
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def page(path: Path, records: list[Record], name: str = "base") -> Tags:
    write_failures(path, {name: {"t": records}}, {"t": QUESTIONS})
    tags = Tags()
    tags.feed(path.read_text(encoding="utf-8"))
    return tags


def test_the_page_shows_what_was_wrong_and_nothing_of_it_is_markup(tmp_path: Path) -> None:
    wrong: dict[str, Any] = {
        "correct": False,
        "answer": "</pre><script>5",
        "tail": "so <img src=x> it is",
    }
    found = page(
        tmp_path / "f.html",
        [record(1), record(2, **wrong), record(2, 1, correct=None, answer=None)],
        "<u>base</u>",
    )
    assert "2 of 3 completions." in found.text
    for text in ("<b>2+2</b> & more?", "</pre><script>5", "so <img src=x> it is", "<u>base</u>, t"):
        assert text in found.text
    assert not {"script", "img", "b", "u"} & set(found.tags)
    assert found.tags.count("details") == 2
    assert "00002, sample 1: unscored" in found.text
    assert "1+1?" not in found.text


def test_a_long_list_is_cut_and_says_so(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(failures, "SHOWN", 2)
    found = page(tmp_path / "f.html", [record(1, s, correct=False) for s in range(3)])
    assert "3 of 3 completions, the first 2 of them here." in found.text
    assert found.tags.count("details") == 2
