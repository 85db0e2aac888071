"""Sources of problems: every kind is read, every fault is named by its place."""

import importlib.util
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import pytest

from stepgrpo_core import InvalidSetting
from tests.support.training.sources import jsonl, problems
from training.data.sources import BadRow, Row, Source, SourceUnavailable, read_source
from training.demo.world import sample_problems


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def test_jsonl_rows_know_their_lines_and_blank_lines_are_none(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "p", "answer": "1"}\n\n{"prompt": "q", "answer": 2}\n')
    assert list(read_source(Source(path=str(path)))) == [
        Row("p", "1", str(path), 1),
        Row("q", "2", str(path), 3),
    ]


def test_unicode_stays_as_it_is_and_line_separators_split_no_line(tmp_path: Path) -> None:
    source = problems(tmp_path / "a.jsonl", "Für ½\u2028 计算", "e\u0301")
    assert [row.prompt for row in read_source(source)] == ["Für ½\u2028 计算", "e\u0301"]


def test_parquet_gives_the_same_rows_as_jsonl(tmp_path: Path) -> None:
    rows = [{"prompt": "Für ½", "answer": "1"}, {"prompt": "q", "answer": "2"}]
    path = tmp_path / "a.parquet"
    datasets.Dataset.from_list(rows).to_parquet(str(path))
    assert list(read_source(Source(path=str(path)))) == [
        Row("Für ½", "1", str(path), 1),
        Row("q", "2", str(path), 2),
    ]


def test_a_hub_data_set_is_read_by_split(tmp_path: Path) -> None:
    repo = tmp_path / "set"
    repo.mkdir()
    problems(repo / "train.jsonl", "from train")
    problems(repo / "test.jsonl", "from test", "second")
    source = Source(hub=str(repo), split="test")
    assert list(read_source(source)) == [
        Row("from test", "1", f"{repo}/test", 1),
        Row("second", "1", f"{repo}/test", 2),
    ]


@pytest.mark.parametrize("fault", [{"split": "dev"}, {"config": "none"}])
def test_a_hub_data_set_without_that_split_or_configuration_says_so(
    tmp_path: Path, fault: dict[str, Any]
) -> None:
    problems(tmp_path / "train.jsonl", "p")
    with pytest.raises(SourceUnavailable, match="check name, config, revision and split"):
        list(read_source(Source(hub=str(tmp_path), **fault)))


def test_an_unreachable_hub_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(SourceUnavailable, match=r"nobody/nothing/train .* set path to a file"):
        list(read_source(Source(hub="nobody/nothing")))


def test_the_demo_world_is_a_source() -> None:
    rows = list(read_source(Source(demo=5, demo_split="test", seed=3)))
    expected = sample_problems(3, "test", 5)
    assert [(row.prompt, row.answer) for row in rows] == [
        (each.prompt, str(each.answer)) for each in expected
    ]
    assert rows[4].place == "demo/test:5"


def test_reasoning_gym_gives_rows_where_it_is_installed_and_else_the_command() -> None:
    source = Source(reasoning_gym="leg_counting", size=3, seed=1)
    if importlib.util.find_spec("reasoning_gym"):
        rows = list(read_source(source))
        assert [row.answer for row in rows] == [row.answer for row in read_source(source)]
        assert rows[2].place == "reasoning_gym/leg_counting:3"
    else:
        with pytest.raises(SourceUnavailable, match=r"leg_counting .* pip install reasoning-gym"):
            list(read_source(source))


def test_the_limit_reads_the_first_rows_only(tmp_path: Path) -> None:
    source = problems(tmp_path / "a.jsonl", "p", "q")
    with Path(str(source.path)).open("a", encoding="utf-8") as file:
        file.write("never read\n")
    rows = read_source(Source(path=source.path, limit=2))
    assert [row.prompt for row in rows] == ["p", "q"]


def test_columns_may_be_nested_and_prompts_may_be_messages(tmp_path: Path) -> None:
    messages = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": "last"},
    ]
    source = jsonl(tmp_path / "a.jsonl", {"chat": messages, "reward": {"truth": "34"}})
    nested = Source(path=source.path, prompt="chat", answer="reward.truth")
    assert [(row.prompt, row.answer) for row in read_source(nested)] == [("last", "34")]


def test_a_column_with_a_dot_in_its_name_comes_before_a_nested_one(tmp_path: Path) -> None:
    row = {"prompt": "p", "a.b": "flat", "a": {"b": "nested"}}
    source = Source(path=jsonl(tmp_path / "a.jsonl", row).path, answer="a.b")
    assert next(read_source(source)).answer == "flat"


def test_the_answer_stands_after_the_last_mark_and_the_template_is_cut(tmp_path: Path) -> None:
    row = {"prompt": "Solve it.\n\nWhat is 1+1?", "answer": "1+1=2 #### no\n#### 2"}
    path = jsonl(tmp_path / "a.jsonl", row).path
    source = Source(path=path, answer_after="####", cut=("Solve it.",))
    assert [(row.prompt, row.answer) for row in read_source(source)] == [("What is 1+1?", "2")]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{broken", "no JSON: Expecting property name"),
        (b'{"prompt": "\xff", "answer": "1"}', "no JSON: .*utf-8"),
        (b"[1, 2]", r"\[1, 2\] where an object with 'prompt' should be"),
        (b'{"question": "p", "answer": "1"}', "no column prompt; there is question, answer"),
        (b"{}", "no column prompt; there is none at all"),
        (b'{"prompt": 5, "answer": "1"}', "the prompt is 5, neither text nor chat messages"),
        (b'{"prompt": " ", "answer": "1"}', "the prompt is empty"),
        (b'{"prompt": [{"role": "system", "content": "s"}], "answer": "1"}', "no .* role user"),
        (b'{"prompt": "p", "answer": null}', "the answer is null, neither text nor a number"),
        (b'{"prompt": "p", "answer": NaN}', "the answer is NaN, neither"),
        (b'{"prompt": "p", "answer": []}', r"the answer is \[\], neither"),
        (b'{"prompt": "p", "answer": ["1", null]}', "the answer is null, neither"),
        (b'{"prompt": "p", "answer": " "}', "the answer is empty"),
    ],
)
def test_a_bad_row_is_an_error_that_names_file_line_and_reason(
    tmp_path: Path, line: bytes, reason: str
) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b'{"prompt": "p", "answer": "1"}\n' + line + b"\n")
    with pytest.raises(BadRow, match=rf"bad\.jsonl:2: .*{reason}") as caught:
        list(read_source(Source(path=str(path))))
    assert (caught.value.source, caught.value.number) == (str(path), 2)


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ({"answer": "model.truth"}, r"no column truth \(of model.truth\); there is gold"),
        ({"answer": "model.gold.x"}, '"3" where an object with .x. should be'),
        ({"answer_after": "####"}, 'the answer "1" has no .####.'),
        ({"cut": ("Template",)}, "the prompt has no .Template., which is to be cut"),
    ],
)
def test_a_mapping_that_does_not_fit_names_the_row(
    tmp_path: Path, setting: dict[str, Any], reason: str
) -> None:
    row = {"prompt": "p", "answer": "1", "model": {"gold": "3"}}
    path = jsonl(tmp_path / "a.jsonl", row).path
    with pytest.raises(BadRow, match=f"a.jsonl:1: {reason}"):
        list(read_source(Source(path=path, **setting)))


def test_a_missing_column_in_parquet_names_those_that_exist(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    datasets.Dataset.from_list([{"question": "p", "solution": "1"}]).to_parquet(str(path))
    with pytest.raises(
        BadRow, match=r"a\.parquet:1: no column prompt; there is question, solution"
    ):
        list(read_source(Source(path=str(path))))


@pytest.mark.parametrize("name", ["none.jsonl", "none.parquet"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError, match=name):
        list(read_source(Source(path=str(tmp_path / name))))


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.parquet").write_bytes(b"nonsense")
    with pytest.raises(SourceUnavailable, match=r"bad.parquet cannot be loaded .* is a Parquet"):
        list(read_source(Source(path=str(tmp_path / "bad.parquet"))))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"source=\[\] .* exactly one of hub, path, demo, reasoning_gym"),
        ({"hub": "a", "demo": 5}, r"source=\['hub', 'demo'\]"),
        ({"path": "a.txt"}, "path='a.txt' .* .jsonl, .*.csv.gz, .parquet"),
        ({"demo": 5, "prompt": ()}, r"prompt=\(\) .* at least one column"),
        ({"demo": 5, "answer_box": True, "answer_after": "#"}, "answer_after='#' .* leave it out"),
        ({"demo": 0}, "demo=0 .* at least 1"),
        ({"demo": 5, "limit": 0}, "limit=0"),
        ({"demo": 5, "split": "test"}, "split='test' .* only hub sources read it"),
        ({"path": "a.jsonl", "seed": 1}, "seed=1 .* only demo and reasoning_gym sources"),
        ({"hub": "a", "demo_split": "test"}, "demo_split='test'"),
    ],
)
def test_a_source_that_contradicts_itself_is_refused(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidSetting, match=message):
        Source(**settings)
