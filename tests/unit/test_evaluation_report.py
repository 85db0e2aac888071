"""The report of known records: tables, figures, names that are mark-up."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.training.records import record
from training.evaluation.records import Record
from training.evaluation.report import MACRO, markdown, results_of, write_report
from training.evaluation.statistics import Unpaired

QUESTIONS = 12


def vanilla(task: int) -> list[Record]:
    return [
        record(q, s, tokens=100 + 40 * q + 10 * s + 200 * task, steps=4, correct=(q + s) % 4 != 0)
        for q in range(QUESTIONS)
        for s in range(2)
    ]


def exiting(task: int) -> list[Record]:
    return [
        record(
            q,
            s,
            tokens=60 + 20 * q + 200 * task,
            steps=2,
            correct=None if q == s == 1 else (q + s) % 6 != 0,
            exit="confident" if q else "length",
            ended=q > 0,
            probes=2,
            probe_tokens=12,
            discarded_tokens=5,
        )
        for q in range(QUESTIONS)
        for s in range(2)
    ]


RECORDS = {
    "base+exits": {"demo": exiting(0), "aime24": exiting(1)},
    "base": {"demo": vanilla(0), "aime24": vanilla(1)},
}


def head(**changes: Any) -> dict[str, Any]:
    sampling = {"max_tokens": 900, "temperature": 0.6, "top_p": 1.0, "top_k": 0}
    settings = {
        "model": "models/base",
        "weights": "ab12",
        "exit": {"policy": "none"},
        "draws": {"samples": 2, "sampling": sampling},
        "dtype": "float32",
        "seed": 0,
        "questions": "cd34",
        "limit": 12,
    } | changes
    versions = {"vllm": "0.31.0"}
    made = {"hardware": "a CPU", "dtype": "float32", "versions": versions, "commit": "ef56"}
    return {"settings": settings, "made_with": made}


EXITS = {
    "policy": "confidence",
    "threshold": 0.95,
    "max_probes": 10,
    "min_tokens": 0,
    "min_interval": 16,
}
HEADS = {
    "base": {"demo": head(), "aime24": head()},
    "base+exits": {"demo": head(exit=EXITS), "aime24": head(exit=EXITS)},
}


@pytest.mark.parametrize(
    "row",
    [
        "| base+exits | 83.3 (60.9 to 94.1) | +8.3 (-11.0 to +25.3) | ",
        "| base+exits | 170 (123 to 216) | -155 (-200 to -112) | 2.00 | 85.0 | 2.00 | 12.0 | ",
        "| base+exits | 52.3 (51.8 to 53.1) | 52.9 (52.0 to 54.1) | ",
        "| base+exits | 22 | 2 | 0 |",
    ],
)
def test_each_table_holds_the_figures_of_known_records(row: str) -> None:
    text = markdown(results_of(RECORDS, "base"), baseline="base", heads=HEADS)
    assert row in text.partition("## demo\n\n")[2].partition("## aime24")[0]


def test_the_contenders_and_where_they_were_measured_stand_above_the_tables() -> None:
    text = markdown(results_of(RECORDS, "base"), baseline="base", heads=HEADS)
    above = text.partition("## demo")[0]
    assert "| base | models/base | none | ab12 |" in above
    assert "confidence, threshold 0.95, max\\_probes 10" in above
    assert "Made with: a CPU; float32; vllm 0.31.0; commit ef56." in above


def test_settings_that_are_not_the_defaults_are_told_with_the_policy() -> None:
    exits = {**EXITS, "markers": ["Hmm"], "mean": "geometric"}
    heads = {**HEADS, "base": {"demo": head(exit=exits, weights="")}}
    text = markdown(results_of(RECORDS, "base"), baseline="base", heads=heads)
    assert "min\\_interval 16, markers \\['Hmm'\\] | revision None |" in text


def test_two_settings_of_one_task_are_both_told() -> None:
    heads = {**HEADS, "base+exits": {"demo": head(exit=EXITS, seed=1), "aime24": head(exit=EXITS)}}
    text = markdown(results_of(RECORDS, "base"), baseline="base", heads=heads)
    demo = text.partition("## demo")[2].partition("## aime24")[0]
    assert "seed 0" in demo
    assert "seed 1" in demo


def test_the_baseline_comes_first_and_the_macro_mean_last() -> None:
    results = results_of(RECORDS, "base")
    assert list(results) == ["demo", "aime24", MACRO]
    assert all(list(found) == ["base", "base+exits"] for found in results.values())
    assert results["demo"]["base"].versus is None


def report(folder: Path, records: Any, **options: Any) -> Path:
    write_report(folder, records, baseline="base", heads=HEADS, **options)
    return folder


def test_the_order_of_records_and_the_date_change_nothing_but_the_field_run(
    tmp_path: Path,
) -> None:
    turned = {
        name: {task: found[::-1] for task, found in tasks.items()}
        for name, tasks in RECORDS.items()
    }
    first = report(tmp_path / "a", RECORDS, run={"date": "then", "seconds": 1})
    second = report(tmp_path / "b", turned, run={"date": "now", "seconds": 2})
    for name in ("results.md", "tradeoff.png"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    here, there = (json.loads((each / "results.json").read_text()) for each in (first, second))
    assert here.pop("run") != there.pop("run")
    assert here == there
    assert not list(first.glob("*.partial*"))


def test_the_json_file_holds_every_figure_and_no_nan(tmp_path: Path) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(name)

    one = {"base": {"demo": [record(1)]}, "other": {"demo": [record(1, tokens=50)]}}
    write_report(tmp_path, one, baseline="base")
    text = (tmp_path / "results.json").read_text(encoding="utf-8")
    other = json.loads(text, parse_constant=refuse)["results"]["demo"]["other"]
    assert other["tokens"] == {"value": 50, "low": None, "high": None}
    assert other["versus"]["ratio_of_means"]["value"] == 0.5
    assert "50.0 (nan" not in (tmp_path / "results.md").read_text()


def test_names_are_text_in_tables_and_in_the_figure(tmp_path: Path) -> None:
    name = "$x_1$ | `a`\n<b>"
    records = {"base": {"demo": vanilla(0)}, name: {"demo": exiting(0)}}
    write_report(tmp_path, records, baseline="base")
    text = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert "| $x\\_1$ \\| \\`a\\` \\<b\\> | 83.3" in text
    assert name in json.loads((tmp_path / "results.json").read_text())["results"]["demo"]
    assert (tmp_path / "tradeoff.png").read_bytes().startswith(b"\x89PNG")


def test_without_a_baseline_there_is_no_comparison(tmp_path: Path) -> None:
    write_report(tmp_path, {"one": {"demo": vanilla(0)}}, baseline=None)
    text = (tmp_path / "results.md").read_text()
    assert "ratio of means |" not in text
    assert "| one | 75.0 (" in text


def test_a_contender_that_nothing_could_grade_has_tokens_and_no_point(tmp_path: Path) -> None:
    lost = [record(q, s, correct=None) for q in range(QUESTIONS) for s in range(2)]
    write_report(tmp_path, {"base": {"demo": vanilla(0)}, "lost": {"demo": lost}}, baseline="base")
    text = (tmp_path / "results.md").read_text()
    assert "| lost |  |  |  | 24 of 24 |" in text
    assert "| lost | 100 (100 to 100) |" in text


def test_contenders_that_were_not_asked_the_same_are_refused(tmp_path: Path) -> None:
    records = {"base": {"demo": vanilla(0)}, "other": {"demo": exiting(0)[:-1]}}
    with pytest.raises(Unpaired, match="same --limit and --samples"):
        write_report(tmp_path, records, baseline="base")
    assert not list(tmp_path.iterdir())
