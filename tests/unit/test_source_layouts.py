"""Layouts that data sets are published in: files, boxed golds, lists of golds, several columns."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.training.published import published
from tests.support.training.sources import jsonl
from training.data.sources import BadRow, Row, Source, SourceUnavailable, read_source
from training.grading import Grader

ROWS = [{"prompt": 'Für ½, "x"', "answer": "1"}, {"prompt": "two\nlines", "answer": "2,5"}]
TEXTS = {
    ".jsonl": "".join(json.dumps(row) + "\n" for row in ROWS),
    ".json": json.dumps(ROWS, indent=1),
    ".csv": '\ufeffprompt,answer\r\n"Für ½, ""x""",1\r\n"two\nlines","2,5"\r\n',
}


@pytest.mark.parametrize("suffix", TEXTS)
@pytest.mark.parametrize("zipped", [False, True])
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, suffix: str, zipped: bool) -> None:
    path = tmp_path / f"a.b{suffix}{'.gz' if zipped else ''}"
    data = TEXTS[suffix].encode()
    path.write_bytes(gzip.compress(data) if zipped else data)
    assert list(read_source(Source(path=str(path)))) == [
        Row('Für ½, "x"', "1", str(path), 1),
        Row("two\nlines", "2,5", str(path), 2),
    ]


@pytest.mark.parametrize(
    ("name", "data", "error", "message"),
    [
        ("a.json", b"{", SourceUnavailable, "a.json is no JSON"),
        ("a.json", b'{"data": []}', SourceUnavailable, "a.json holds no list of rows"),
        ("a.jsonl.gz", b"plain", SourceUnavailable, "cannot be unzipped"),
        ("a.jsonl.gz", gzip.compress(b"x" * 99)[:20], SourceUnavailable, "cannot be unzipped"),
        ("a.csv", b"prompt,answer\np,1\np,2,3\n", BadRow, "a.csv:2: more fields than columns"),
        ("a.csv", b"prompt,answer\np\n", BadRow, "a.csv:1: the answer is null"),
        ("a.csv", b'prompt,answer\np,1\n"p\n', BadRow, "a.csv:2: no CSV"),
        ("a.csv", b"prompt,answer\n\xff,1\n", BadRow, "a.csv:1: no CSV: .*utf-8"),
    ],
)
def test_a_file_that_is_damaged_is_named(
    tmp_path: Path, name: str, data: bytes, error: type[Exception], message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(error, match=message):
        list(read_source(Source(path=str(path))))


def read(folder: Path, row: dict[str, Any], **settings: Any) -> tuple[str, str]:
    (found,) = read_source(Source(path=jsonl(folder / "a.jsonl", row).path, **settings))
    return found.prompt, found.answer


def test_the_gold_is_the_last_box_of_a_solution(tmp_path: Path) -> None:
    row = {"prompt": "p", "solution": "First \\boxed{1}, then \\boxed{\\frac{3}{4}}."}
    assert read(tmp_path, row, answer="solution", answer_box=True)[1] == "\\frac{3}{4}"
    for solution in ("none", "\\boxed{1} \\boxed{2"):
        with pytest.raises(BadRow, match=r"a\.jsonl:1: .* has no box that closes"):
            read(tmp_path, {**row, "solution": solution}, answer="solution", answer_box=True)


def test_a_list_of_golds_is_all_of_its_values(tmp_path: Path) -> None:
    assert read(tmp_path, {"prompt": "p", "answer": ["$69$"]})[1] == "$69$"
    both = read(tmp_path, {"prompt": "p", "answer": ["$69$", 84]})[1]
    texts = [f"</think>\\boxed{{{each}}}" for each in ("69, 84", "84, 69", "69", "69, 85")]
    with Grader(seconds=60) as grader:
        found = [each.correct for each in grader.grade(texts, [both] * 4)]
    assert found == [True, True, False, False]


def test_columns_of_a_prompt_are_joined_and_empty_ones_skipped(tmp_path: Path) -> None:
    columns = {"prompt": ("context", "question")}
    row = {"context": "A hen.", "question": "Eggs?", "answer": 1}
    assert read(tmp_path, row, **columns)[0] == "A hen.\n\nEggs?"
    assert read(tmp_path, {**row, "context": None}, **columns)[0] == "Eggs?"
    with pytest.raises(BadRow, match="no column context"):
        read(tmp_path, {"question": "Eggs?", "answer": 1}, **columns)


def test_other_columns_come_with_a_row_where_it_has_them(tmp_path: Path) -> None:
    source = jsonl(
        tmp_path / "a.jsonl",
        {"prompt": "p", "answer": 1, "level": 3, "meta": {"subject": "algebra"}},
        {"prompt": "q", "answer": 1, "level": None},
    )
    found = [row.columns for row in read_source(source, ("level", "meta.subject"))]
    assert found == [(("level", "3"), ("meta.subject", "algebra")), ()]


@pytest.mark.parametrize(
    ("name", "settings", "count"),
    [
        ("math_test5000.jsonl", {"prompt": "problem", "answer": "solution"}, 5000),
        ("minerva.jsonl", {"prompt": "problem", "answer": "solution"}, 272),
    ],
)
def test_published_solutions_give_a_gold_for_every_row(
    name: str, settings: dict[str, Any], count: int
) -> None:
    rows = list(read_source(Source(path=published(name), answer_box=True, **settings)))
    assert len(rows) == count


def test_boxes_of_published_solutions_are_the_published_answers() -> None:
    path, column = published("math500.jsonl"), {"prompt": "problem"}
    answers = [row.answer for row in read_source(Source(path=path, **column))]  # type: ignore[arg-type]
    boxed = Source(path=path, answer="solution", answer_box=True, **column)  # type: ignore[arg-type]
    texts = [f"</think>\\boxed{{{row.answer}}}" for row in read_source(boxed)]
    with Grader(seconds=60) as grader:
        right = sum(each.correct is True for each in grader.grade(texts, answers))
    assert right >= 498  # of 500
