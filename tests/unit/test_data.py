"""Training data: every reason to leave a row out, counted and shown."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stepgrpo_core import InvalidSetting
from tests.support.training.sources import jsonl, problems
from training.data.dataset import DataConfig, DataReport, NoRows, Source, SourceReport, load_rows
from training.data.decontamination import OverlapIndex, words

LONG = "one two three four five six seven eight nine ten eleven twelve thirteen"


def spaces(text: str) -> int:
    return len(text.split())


def prompts_of(config: DataConfig) -> list[str]:
    return [row.prompt for row in load_rows(config, spaces)[0]]


@pytest.mark.parametrize("setting", [{"train": ()}, {"ngram": 0}, {"max_prompt_tokens": 0}])
def test_settings_out_of_range_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(InvalidSetting, match=next(iter(setting))):
        DataConfig(**({"train": (Source(demo=1),)} | setting))


def test_rows_keep_their_order_and_carry_the_suffix(tmp_path: Path) -> None:
    first, second = problems(tmp_path / "a.jsonl", "p", "q"), problems(tmp_path / "b.jsonl", "r")
    config = DataConfig((first, second), prompt_suffix=" Box it.")
    rows, report = load_rows(config, spaces)
    assert [row.prompt for row in rows] == ["p Box it.", "q Box it.", "r Box it."]
    assert [row.place for row in rows][2] == f"{second.path}:1"
    assert [each.kept for each in report.train] == [2, 1]
    assert report.examples == ()


def test_duplicates_across_sources_are_counted_and_the_first_stays(tmp_path: Path) -> None:
    first = problems(tmp_path / "a.jsonl", "What is 1 + 1?", "What is 1-1?")
    second = problems(tmp_path / "b.jsonl", "what is  1+1", "What is 1+2?")
    rows, report = load_rows(DataConfig((first, second)), spaces)
    assert [row.place for row in rows] == [
        f"{first.path}:1",
        f"{first.path}:2",
        f"{second.path}:2",
    ]
    assert [each.duplicates for each in report.train] == [0, 1]
    assert report.examples[0].detail == f"the same as {first.path}:1"
    kept = prompts_of(DataConfig((first, second), deduplicate=False))
    assert len(kept) == 4


def test_duplicates_with_another_answer_are_counted_apart(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "answer": "1"}, {"prompt": "P.", "answer": "2"}]
    _, report = load_rows(DataConfig((jsonl(tmp_path / "a.jsonl", *rows),)), spaces)
    assert (report.train[0].duplicates, report.train[0].contradicting) == (0, 1)
    assert report.examples[0].detail.startswith("answer '2', but '1' in ")


def test_problems_that_share_a_run_of_words_with_an_evaluation_set_are_left_out(
    tmp_path: Path,
) -> None:
    evaluation = problems(tmp_path / "e.jsonl", f"Before: {LONG}. After", "Short one")
    train = problems(
        tmp_path / "a.jsonl",
        f"Zero, {LONG.upper()} fourteen",  # shares exactly thirteen
        LONG.replace("seven", "7"),  # shares six and six
        "Short one, and more",  # holds a short one, which counts as a whole only
        "short one.",
    )
    rows, report = load_rows(DataConfig((train,), exclude=(evaluation,)), spaces)
    assert [row.number for row in rows] == [2, 3]
    assert report.train[0].overlapping == 2
    assert report.exclude == ((str(evaluation.path), 2),)
    assert report.examples[0].detail == f"shares {LONG!r} with {evaluation.path}:1"


def test_the_suffix_does_not_overlap_and_shorter_runs_find_more(tmp_path: Path) -> None:
    evaluation = problems(tmp_path / "e.jsonl", f"What? {LONG}")
    train = problems(tmp_path / "a.jsonl", "Who?", "one two three")
    config = DataConfig((train,), exclude=(evaluation,), prompt_suffix=f" {LONG}")
    assert len(prompts_of(config)) == 2
    config = DataConfig((train,), exclude=(evaluation,), ngram=3)
    assert prompts_of(config) == ["Who?"]


def test_splits_of_the_demo_world_do_not_overlap() -> None:
    config = DataConfig((Source(demo=300),), exclude=(Source(demo=300, demo_split="test"),))
    assert len(prompts_of(config)) == 300


def test_long_prompts_are_left_out_with_their_suffix_counted(tmp_path: Path) -> None:
    train = problems(tmp_path / "a.jsonl", "a b c", "a b c d")
    config = DataConfig((train,), prompt_suffix=" x", max_prompt_tokens=4)
    rows, report = load_rows(config, spaces)
    assert [row.prompt for row in rows] == ["a b c x"]
    assert report.examples[0].detail == "5 tokens are over max_prompt_tokens=4"


def test_every_row_is_accounted_for_and_the_report_reads_well(tmp_path: Path) -> None:
    evaluation = problems(tmp_path / "e.jsonl", "known")
    train = problems(tmp_path / "a.jsonl", "p", *["p"] * 5, "known", "a b c", "q")
    config = DataConfig((train,), exclude=(evaluation,), max_prompt_tokens=2)
    _, report = load_rows(config, spaces)
    assert report.train == (
        SourceReport(str(train.path), read=9, kept=2, duplicates=5, contradicting=0,
                     overlapping=1, overlong=1),
    )  # fmt: skip
    lines = report.lines()
    assert lines[0] == (
        f"{train.path}: 9 read, 2 kept; left out 5 duplicates, 0 contradicting, 1 overlapping, "
        "1 over-long"
    )
    assert lines[1] == f"{evaluation.path}: 1 read to be excluded"
    assert lines[2] == f"  {train.path}:2 duplicate, the same as {train.path}:1: p"
    assert len(lines) == 2 + 3 + 1 + 1  # three examples of a reason at most


def test_nothing_left_is_an_error_that_carries_the_report(tmp_path: Path) -> None:
    train = problems(tmp_path / "a.jsonl", "p")
    with pytest.raises(NoRows, match=r"no row is left .*\n.*1 read, 0 kept.* 1 overlapping"):
        load_rows(DataConfig((train,), exclude=(train,)), spaces)
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(NoRows, match=r"empty.jsonl: 0 read"):
        load_rows(DataConfig((Source(path=str(tmp_path / "empty.jsonl")),)), spaces)
    assert DataReport((), (), ()).lines() == []


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ("What is 2 + 2?", "what is  2+2", True),
        ("Compute $x + 1$.", "Compute x+1", True),
        ("47+8-5", "47-8+5", False),
        ("5!", "5", False),
        ("[1,2)", "(1,2)", False),
        ("3²", "32", False),
        ("é", "e\u0301", True),
        ("计算面积", "计算 面积", True),
        ("?", "!", False),
    ],
)
def test_words_are_equal_for_the_same_problem_only(left: str, right: str, same: bool) -> None:
    assert (words(left) == words(right)) == same


def test_text_without_spaces_overlaps_by_character() -> None:
    index = OverlapIndex.build([("e:1", "已知三角形的面积求边长")], n=5)
    assert index.find(words("若三角形的面积为五")) == (tuple("三角形的面"), "e:1")
    assert index.find(words("若三角形和圆")) is None


def test_importing_the_data_layer_loads_nothing_slow() -> None:
    slow = {"torch", "vllm", "datasets", "pandas", "pyarrow", "transformers", "sympy"}
    program = f"import sys, training.data.dataset; print({slow!r} & set(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"
