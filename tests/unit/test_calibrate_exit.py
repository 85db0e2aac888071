"""`calibrate-exit`: what it refuses before a model is loaded, and what it writes."""

import dataclasses
import json
from pathlib import Path

import pytest

from service.config.thresholds import read_thresholds
from stepgrpo_core import ExitSettings
from stepgrpo_core.risk import SAMPLING, Reading, Selection, Trace, select_threshold
from tests.support.training.refusals import refusal
from training.cli import build_parser
from training.exits import command

CONDITIONS = {
    "model": "my-model",
    "weights": "aa",
    "chat_template": "bb",
    "sampling": dict.fromkeys(SAMPLING, 0.5),
}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "pass exactly one of --questions, --prompts and --demo"),
        (("--demo", "50", "--questions", "q.jsonl"), "pass exactly one"),
        (("--demo", "0"), "--demo=0"),
        (("--demo", "50", "--temperature", "-1"), "--temperature=-1.0"),
        (("--demo", "50", "--top-p", "0"), "--top-p=0.0"),
        (("--demo", "50", "--thresholds", "0.9", "1"), "--thresholds=1.0"),
        (("--demo", "50", "--epsilon", "0"), "epsilon=0.0"),
        (("--demo", "50", "--delta", "1"), "delta=1.0"),
        (("--prompts", "p.jsonl"), "--risk='lost' is invalid: it needs answers"),
        (("--demo", "44"), "a risk of 0.05 needs 45 questions or more"),
    ],
)
def test_what_cannot_work_is_refused_before_the_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    output = str(tmp_path / "exit.yaml")
    command = ("calibrate-exit", "--model", "m", "--output", output)
    assert message in refusal(monkeypatch, *command, *words)


def selection(changes: int) -> tuple[Selection, list[Trace]]:
    """100 questions, of which the first ones change at a signal of 0.6."""
    traces = [
        Trace(f"q{n}", 100, (Reading(20, 0.6, n < changes, n >= changes),), right=True)
        for n in range(100)
    ]
    return select_threshold(traces, (0.5, 0.9), loss="lost", epsilon=0.05), traces


def run_with(
    monkeypatch: pytest.MonkeyPatch, output: Path, changes: int, *words: str
) -> list[Trace]:
    """Run the command on given traces."""
    traces = selection(changes)[1]
    settings = ExitSettings(policy="confidence")
    monkeypatch.setattr(command, "_record", lambda *_: (traces, settings, CONDITIONS))
    given = ("calibrate-exit", "--model", "x/my-model", "--demo", "100", "--output", str(output))
    args = build_parser().parse_args([*given, "--thresholds", "0.5", "0.9", *words])
    args.run(args)
    return traces


def test_the_server_reads_what_is_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "exit.yaml"
    traces = run_with(monkeypatch, output, 0)
    assert "With probability 0.9 over the draw of 100 questions, at most 5.0%" in output.read_text()
    read = read_thresholds(output)
    assert (read.risk, read.epsilon, read.delta, read.questions) == ("lost", 0.05, 0.1, 100)
    assert (read.settings["policy"], read.settings["threshold"]) == ("confidence", 0.5)
    assert {name: getattr(read, name) for name in CONDITIONS} == CONDITIONS
    figures = json.loads((tmp_path / "exit.json").read_text())
    assert figures["traces"] == json.loads(json.dumps([dataclasses.asdict(t) for t in traces]))
    assert (tmp_path / "exit.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert "without one failure 45 prove a risk of 0.05" in printed
    assert "| 0.5 | 0.0% | 2.3% | 20.0% | yes |" in printed


def test_without_a_valid_threshold_it_says_which_bound_would_be_and_writes_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    output = tmp_path / "exit.yaml"
    with pytest.raises(ValueError, match=r"use --epsilon 0\.\d+ or more, or more questions"):
        run_with(monkeypatch, output, 10, "--thresholds", "0.5")
    assert not output.exists()
    assert (tmp_path / "exit.json").exists()
