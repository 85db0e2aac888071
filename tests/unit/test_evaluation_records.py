"""Files of evaluated completions: cut, damaged, of other settings."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from stepgrpo_core import ExitSettings
from tests.support.training.records import record
from training.evaluation.records import (
    Settings,
    append_questions,
    open_records,
    read_head,
    read_records,
    records_file,
)
from training.evaluation.tasks import Draws
from training.rollouts.batch import Sampling

SETTINGS = Settings(
    contender="base+confidence",
    model="models/base",
    weights="ab12",
    exit=ExitSettings(policy="confidence"),
    task="demo",
    questions="cd34",
    limit=None,
    draws=Draws(2, Sampling(900, 0.6)),
    dtype="float32",
    seed=0,
    engine="vllm 0 cpu",
)
QUESTIONS = [[record(q, s, text="⟨é⟩\n" if s else None) for s in range(2)] for q in range(4)]
ALL = [each for question in QUESTIONS for each in question]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = records_file(tmp_path, "base+confidence", "demo")
    open_records(found, SETTINGS, {"commit": "ef56"})
    return found


def test_records_come_back_in_the_order_of_questions_whatever_finished_first(path: Path) -> None:
    append_questions(path, QUESTIONS[2:])
    append_questions(path, QUESTIONS[:2])
    assert read_records(path, SETTINGS) == ALL
    assert read_head(path) == {"settings": SETTINGS.as_json(), "made_with": {"commit": "ef56"}}


@pytest.mark.parametrize("lost", [1, 2, 100, 600, 900])
def test_of_a_file_cut_anywhere_only_the_torn_question_is_lost(path: Path, lost: int) -> None:
    append_questions(path, QUESTIONS)
    whole = path.read_bytes()
    path.write_bytes(whole[:-lost])
    left = 4 - whole[-lost:].count(b"\n")
    assert read_records(path, SETTINGS) == ALL[: 2 * left]
    open_records(path, SETTINGS, {"commit": "another"})
    append_questions(path, QUESTIONS[left:])
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "evaluated with seed=0, not 1; set it back, delete the file, or use another"),
        ({"limit": 5}, "limit=None, not 5"),
        ({"weights": "zz"}, "weights='ab12', not 'zz'"),
        ({"exit": ExitSettings()}, r"exit\.policy='confidence', not 'none'"),
        (
            {"draws": Draws(2, Sampling(800, 0.6))},
            r"draws\.sampling\.max_tokens=900, not 800",
        ),
        ({"draws": Draws(3, Sampling(900, 0.6))}, r"draws\.samples=2, not 3"),
    ],
)
def test_other_settings_are_refused_by_name_and_both_values(
    path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        read_records(path, dataclasses.replace(SETTINGS, **change))


@pytest.mark.parametrize("line", [b"{", b"{}", b"[]", b'{"question": "1", "samples": [{}]}'])
def test_a_damaged_line_is_named_with_file_and_number(path: Path, line: bytes) -> None:
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(ValueError, match=r"demo\.jsonl:2: .*; delete the line"):
        read_records(path, SETTINGS)


def test_a_file_that_is_none_of_ours_is_named(path: Path) -> None:
    path.write_text('{"question": "1", "samples": []}\n')
    with pytest.raises(ValueError, match=r"demo\.jsonl:1: KeyError.*; delete the file"):
        read_records(path, SETTINGS)


def test_no_file_is_no_records_and_an_empty_one_has_no_head(tmp_path: Path) -> None:
    assert read_records(tmp_path / "none.jsonl", SETTINGS) == []
    with pytest.raises(ValueError, match="holds nothing"):
        read_head(tmp_path / "none.jsonl")


@pytest.mark.parametrize("name", ["../../etc", "a/b", "..", "", "ü ⟨x⟩", ".hidden", "a\\b\n"])
def test_no_name_leads_out_of_the_output(tmp_path: Path, name: str) -> None:
    path = records_file(tmp_path, name, name)
    assert path.parent.parent == tmp_path
    assert path.resolve().is_relative_to(tmp_path.resolve())
    assert not path.parent.name.startswith(".")
