"""Files of a finished run beside its weights."""

import json
from pathlib import Path

import pytest

from training.config.schema import RunConfig, load_config
from training.data.dataset import DataReport
from training.run.artifacts import metric_table, write_card, write_metrics

HISTORY: list[dict[str, float]] = [
    {"step": 1, "reward": 0.25, "kl": 1},
    {"step": 2, "kl": 2},
    {"step": 3, "reward": 0.5},
]


def config(output: Path, *overrides: str) -> RunConfig:
    return load_config(["demo", *overrides], [f"output={output}", "trl.bf16=false"])


def test_metrics_are_one_json_line_per_log_entry(tmp_path: Path) -> None:
    write_metrics(tmp_path, HISTORY)
    lines = (tmp_path / "metrics.jsonl").read_text("utf-8").splitlines()
    assert list(map(json.loads, lines)) == HISTORY


def test_the_table_has_the_first_and_last_value_of_metrics_that_the_last_step_has() -> None:
    assert metric_table(HISTORY, ("reward", "kl", "loss"), unit=" step").splitlines() == [
        "| training metric | first step | last step |",
        "|---|---|---|",
        "| reward | 0.25 | 0.5 |",
    ]
    assert metric_table([], ("reward",)).count("\n") == 2


@pytest.mark.parametrize(
    ("presets", "library", "serve"),
    [
        ((), "transformers", "`stepgrpo-serve .`"),
        (("demo-lora",), "peft", "--enable-lora --lora-modules run=.`"),
    ],
)
def test_the_card_names_base_model_library_and_the_command_that_serves(
    tmp_path: Path, presets: tuple[str, ...], library: str, serve: str
) -> None:
    run = config(tmp_path / "run", *presets)
    Path(run.output).mkdir()
    write_card(run, tags="x", summary="Trained.", sections="## Part\n", data=DataReport((), (), ()))
    card = (tmp_path / "run" / "README.md").read_text("utf-8")
    _, head, body = card.split("---\n", 2)
    assert head == f"base_model: {run.model.name}\nlibrary_name: {library}\ntags: [x, reasoning]\n"
    assert body.startswith("# run\n\nTrained. To serve it, run this in its folder: ")
    assert serve in body
    assert "## Part\n\n## Data\n" in body
    assert body.endswith("```\n")
