"""The demo's table: which jobs make it, and what its page says of known records."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.savings.recompute import EQUAL, recompute
from training.config.schema import load_config
from training.demo.equal import at_as_many
from training.demo.methods import METHODS, STEPS, runs_of
from training.demo.results import Row, archive_of, page, pooled, without_records, write_results
from training.demo.seeds import RESULTS
from training.demo.table import Table, jobs_of, run_table
from training.evaluation.records import Record, read_archive, write_archive

MADE: dict[str, Any] = {
    "steps": STEPS,
    "problems": 40,
    "way_problems": 20,
    "reduced": False,
    "seconds": {"train-lp-s0": 3600.0, "eval-lp-s0": 1800.0},
    "versions": {"vllm": "0.31.0"},
    "hardware": "a CPU",
    "commit": "abc1234",
}


def records(
    wrong: int, tokens: int, steps: int, *, probe_tokens: int = 0, count: int = 40
) -> list[Record]:
    return [
        Record(
            question=f"{number:05}",
            sample=0,
            seed=number,
            tokens=tokens + number % 2,
            reasoning_tokens=tokens - 10,
            steps=steps,
            correct=number >= wrong,
            lenient=number >= wrong,
            formatted=True,
            verdict="exact",
            ended=True,
            exit="natural",
            probes=1,
            probe_tokens=probe_tokens,
            discarded_tokens=0,
        )
        for number in range(count)
    ]


VANILLA = records(10, 199, 5)
ROWS = [
    Row("vanilla", [VANILLA]),
    Row("vanilla, exit policy `confidence`", [records(9, 79, 2, probe_tokens=20)]),
    Row("**Step-GRPO**", [records(0, 79, 1), records(2, 81, 1)]),
    Row("GRPO+LP", [records(6, 59, 1)]),
]
WAYS = {
    "**Step-GRPO**": {25: [records(8, 139, 3, count=20)], 50: [records(1, 79, 1, count=20)]},
    "GRPO+LP": {25: [records(5, 78, 2, count=20)], 50: [records(2, 59, 1, count=20)]},
}


def test_the_page_compares_every_row_with_vanilla(tmp_path: Path) -> None:
    write_results(tmp_path, ROWS, WAYS, MADE)
    page = (tmp_path / "results.md").read_text(encoding="utf-8")
    vanilla = next(line for line in page.splitlines() if line.startswith("| vanilla |"))
    assert vanilla.startswith("| vanilla | 75.0 (")
    assert "| 199.5 | 100 | 100.0 | 5.00 |" in vanilla
    exited = next(line for line in page.splitlines() if line.startswith("| vanilla, exit"))
    assert "| +2.5 (" in exited
    assert "| 49.9 | 2.00 |" in exited  # (79.5 + 20) / 199.5: trial answers are a cost
    ours = next(line for line in page.splitlines() if line.startswith("| **Step-GRPO** |"))
    assert "| +22.5 (" in ours  # two seeds: 30 of 40 become 40 and 38
    assert ours.endswith("| 100.0 / 80, 95.0 / 82 |")
    assert "1.5 hours of jobs" in page
    assert (tmp_path / "results.png").stat().st_size > 10_000
    data = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert list(data["rows"]) == [row.title for row in ROWS]
    assert data["ways"]["GRPO+LP"]["50"]["tokens"]["value"] == 59.5


def test_both_ways_are_compared_wherever_they_were(tmp_path: Path) -> None:
    write_results(tmp_path, ROWS, WAYS, MADE)
    page = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert "| GRPO+LP with as many tokens | GRPO+LP, 25: 78.5 | GRPO+LP, 50: 59.5 |" in page
    first = next(line for line in page.splitlines() if line.startswith("| 25: 139.5 |"))
    last = next(line for line in page.splitlines() if line.startswith("| 50: 79.5 |"))
    assert "| -15.0 (" in first  # 12 of 20 against 15
    assert "| +20.0 (" in last
    assert "| +5.0 (" in last


def test_at_as_many_tokens_the_line_between_two_checkpoints_is_what_counts() -> None:
    few, many = records(8, 40, 1, count=20), records(4, 80, 2, count=20)  # 12 and 16 of 20
    tokens = [sum(each.tokens for each in way) / 20 for way in (few, many)]
    mine = [replace(each, tokens=round(tokens[0] * 3 / 4 + tokens[1] / 4)) for each in few]
    mine = [replace(each, correct=True) for each in mine]
    share = (mine[0].tokens - tokens[0]) / (tokens[1] - tokens[0])
    found = at_as_many(mine, [many, few])
    assert found is not None
    assert found.value == pytest.approx(1 - (12 * (1 - share) + 16 * share) / 20)
    assert found.low < found.value < found.high
    assert at_as_many([replace(each, tokens=1) for each in mine], [many, few]) is None


def test_seeds_are_samples_of_a_problem_and_vanilla_stands_against_each() -> None:
    one, two = records(0, 79, 1), records(20, 79, 1)
    summary = pooled([one, two], VANILLA)
    assert summary.questions == 40
    assert summary.completions == 80
    assert summary.accuracy is not None
    assert summary.versus is not None
    assert summary.versus.accuracy is not None
    assert summary.accuracy.value == 0.75
    assert summary.versus.accuracy.value == 0


def test_every_method_is_a_configuration_that_loads() -> None:
    for method in METHODS:
        config = load_config(["demo-lora", method.overlay], method.overrides)
        assert (config.sft is not None) == (method.command == "sft")


def test_seeds_and_the_reduced_table() -> None:
    names = [run.name for run in runs_of(reduced=False)]
    assert len(names) == len(set(names))
    for name in ("step-grpo", "grpo", "lp"):
        assert {f"{name}-s{seed}" for seed in range(3)} <= set(names)
    assert [run.name for run in runs_of(reduced=True)] == ["step-grpo-s0", "lp-s0"]


def test_jobs_wait_for_what_they_need(tmp_path: Path) -> None:
    jobs = {job.name: job for job in jobs_of(Table(tmp_path, Path("models/demo-base")))}
    assert jobs["train-step-grpo-s0"].after is None
    assert jobs["train-step-grpo-long-s0"].after == "train-step-grpo-s0"
    assert jobs["eval-lp-s2"].after == "train-lp-s2"
    assert jobs["eval-way-lp-s0"].after == "train-lp-s0"
    assert jobs["eval-demo-base"].after is None


def test_another_learning_rate_is_every_grpo_runs_and_named_on_the_page(tmp_path: Path) -> None:
    table = Table(tmp_path, Path("models/demo-base"), reduced=True, learning_rate=1e-3)
    trainings = [job for job in jobs_of(table) if job.name.startswith("train-")]
    assert all("trl.learning_rate=0.001" in job.command for job in trainings)
    whole = {job.name: job for job in jobs_of(Table(tmp_path, Path("m"), learning_rate=1e-3))}
    assert "trl.learning_rate=0.001" not in whole["train-deer-sft-s0"].command
    write_results(tmp_path, ROWS, WAYS, MADE | {"reduced": True, "learning_rate": 0.001})
    page = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert "`stepgrpo-train demo results --reduced --learning-rate 0.001` at commit" in page


def test_a_longer_run_goes_on_in_a_copy(tmp_path: Path) -> None:
    table = Table(tmp_path, Path("models/demo-base"))
    (tmp_path / "step-grpo-s0").mkdir()
    (tmp_path / "step-grpo-s0" / "config.yaml").write_text("seed: 0\n")
    job = next(each for each in jobs_of(table) if each.name == "train-step-grpo-long-s0")
    assert job.prepare is not None
    job.prepare()
    job.prepare()  # a second try goes on with the copy
    assert (tmp_path / "step-grpo-long-s0" / "config.yaml").read_text() == "seed: 0\n"


def test_a_table_of_other_settings_is_refused(tmp_path: Path) -> None:
    (tmp_path / "table.json").write_text('{"problems": 7}')
    with pytest.raises(ValueError, match="use another --output"):
        run_table(Table(tmp_path, Path("models/demo-base")))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    write_results(folder, ROWS, WAYS, MADE)
    return folder


@pytest.fixture
def published(written: Path, tmp_path: Path) -> Path:
    """Return a copy that a test may change."""
    return shutil.copytree(written, tmp_path / "published")


def test_the_records_give_every_figure_of_the_page(published: Path) -> None:
    assert recompute(published) == []
    names = {path.name for path in (published / "records").iterdir()}
    assert {"demo-base-s0.jsonl.gz", "step-grpo-s1.jsonl.gz", "lp-s0-step50.jsonl.gz"} <= names


def test_equal_records_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_archive(tmp_path / name, VANILLA, {"commit": "abc1234"})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("results.md", "| +22.5 (", "| +32.5 ("),  # the table
        ("results.md", "| +20.0 (", "| +21.0 ("),  # at equal tokens
        ("results.json", '"steps": 5.0', '"steps": 5.5'),
        ("results.json", '"value": 59.5', '"value": 58.5'),
    ],
)
def test_another_figure_on_the_page_is_found(
    published: Path, name: str, old: str, new: str
) -> None:
    path = published / name
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    assert any(each.startswith("results.") for each in recompute(published))


def test_another_record_is_found_in_a_table_that_has_only_a_part(published: Path) -> None:
    kept = {archive_of(published, row.title, 0) for row in ROWS}
    for path in (published / "records").iterdir():
        if path not in kept:
            path.unlink()
    target, data = published / "results.md", json.loads((published / "results.json").read_text())
    equal = target.read_text().partition(EQUAL)[2]
    target.write_text(page(data, EQUAL + equal.rstrip(), without_records(published, data)))
    assert "Some of the [records](records) behind this page were not kept" in target.read_text()
    assert recompute(published) == []
    worse = archive_of(published, "**Step-GRPO**", 0)
    write_archive(worse, records(1, 79, 1), {})
    assert any("rows.**Step-GRPO**.seeds.0.accuracy" in each for each in recompute(published))


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl.gz"
    write_archive(path, VANILLA, {})
    assert read_archive(path) == VANILLA
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=f"{path} is no archive of records"):
        read_archive(path)


def test_the_published_figures_are_those_of_the_published_records() -> None:
    assert list((RESULTS.parent / "records").glob("*.jsonl.gz"))
    assert recompute(RESULTS.parent) == []
