"""`calibrate-exit`: what it refuses before a model is loaded, and what it writes."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from service.config.thresholds import read_thresholds
from stepgrpo_core.errors import InvalidSetting
from stepgrpo_core.risk import SAMPLING, Exit
from tests.support.training.refusals import refusal
from training.cli import build_parser
from training.exits import command
from training.exits.store import Recorded, TraceFile
from training.exits.sweeps import sweep_of

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
        (("--demo", "50", "--policies", "margin", "margin"), "name each policy once"),
        (("--demo", "50", "--policies", "margin", "entropy"), "needs 59 questions or more"),
        (("--demo", "50", "--give-up-tokens", "9"), "belongs to --policies confidence+give_up"),
        (("--demo", "50", "--policies", "confidence+give_up"), "--give-up-tokens=None"),
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


def recorded(count: int, changes: int, policies: Sequence[str] = ("confidence",)) -> list[Recorded]:
    """Questions that exit with 20 of 100 tokens at every candidate; the first ones change."""

    def made(number: int, policy: str) -> Recorded:
        probes = 30 if policy == "confidence" else 5
        exits = tuple(
            Exit(20, number < changes, number < changes, False, probe_tokens=probes)
            for _ in sweep_of(policy, (0.5, 0.9)).thresholds
        )
        signals = tuple(0.97 if policy == "confidence" else None for _ in exits)
        return Recorded(f"q{number}", 100, True, {policy: exits}, {policy: signals})

    of = [[made(number, policy) for policy in policies] for number in range(count)]
    return [
        Recorded(
            each[0].question,
            100,
            True,
            {name: exits for one in each for name, exits in one.exits.items()},
            {name: found for one in each for name, found in one.signals.items()},
        )
        for each in of
    ]


def run_with(monkeypatch: pytest.MonkeyPatch, output: Path, changes: int, *words: str) -> None:
    """Run the command on given runs."""
    given = ("calibrate-exit", "--model", "x/my-model", "--demo", "100", "--output", str(output))
    args = build_parser().parse_args([*given, "--thresholds", "0.5", "0.9", *words])
    runs = recorded(100, changes, args.policies)
    family = {"closing_text": "x</think>"}
    monkeypatch.setattr(command, "_record", lambda *_: (runs, family, CONDITIONS))
    args.run(args)


def test_the_server_reads_what_is_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "exit.yaml"
    run_with(monkeypatch, output, 0)
    assert "With probability 0.9 over the draw of 100 questions, at most 5.0%" in output.read_text()
    read = read_thresholds(output)
    assert (read.risk, read.epsilon, read.delta, read.questions) == ("lost", 0.05, 0.1, 100)
    assert (read.settings["policy"], read.settings["threshold"]) == ("confidence", 0.5)
    assert read.settings["closing_text"] == "x</think>"
    assert {name: getattr(read, name) for name in CONDITIONS} == CONDITIONS
    figures = json.loads((tmp_path / "exit.json").read_text())
    assert figures["chosen"] == "confidence"
    (row,) = figures["policies"]["confidence"]["reliability"]
    assert (row["confidence"], row["exits"], row["unchanged"]) == (0.97, 100, 1)
    assert (tmp_path / "exit.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert "without one failure 45 prove a risk of 0.05" in printed
    assert "| confidence | 0.5 | 0.0% | 2.3% | 20.0% | 50.0% | yes |" in printed


def test_competing_policies_share_delta_and_the_cheapest_is_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "exit.yaml"
    run_with(monkeypatch, output, 0, "--policies", "confidence", "margin")
    read = read_thresholds(output)
    assert (read.settings["policy"], read.delta) == ("margin", 0.1)
    figures = json.loads((tmp_path / "exit.json").read_text())["policies"]
    assert [each["delta"] for each in figures.values()] == [0.05, 0.05]
    assert "without one failure 59 prove a risk of 0.05" in capsys.readouterr().out


def test_both_thresholds_are_calibrated_jointly(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    output, policy = tmp_path / "exit.yaml", "confidence+give_up"
    run_with(monkeypatch, output, 0, "--policies", policy, "--give-up-tokens", "900")
    found = read_thresholds(output).settings
    assert (found["policy"], found["threshold"], found["give_up_tokens"]) == (policy, 0.5, 900)


def test_traces_are_kept_whole_and_only_for_the_same_conditions(tmp_path: Path) -> None:
    path, runs = tmp_path / "traces.jsonl", recorded(5, 1)
    TraceFile(path, {"model": "a", "sizes": (1, 2)}, resume=True).add(runs)
    with path.open("a") as file:
        file.write('{"question": "torn')
    again = TraceFile(path, {"model": "a", "sizes": (1, 2)}, resume=True)
    assert again.runs == runs
    again.add(runs[:1])
    assert TraceFile(path, {"model": "a", "sizes": (1, 2)}, resume=True).runs == [*runs, runs[0]]
    with pytest.raises(InvalidSetting, match="its traces differ in model; run without --resume"):
        TraceFile(path, {"model": "b", "sizes": (1, 2)}, resume=True)
    assert TraceFile(path, {"model": "b"}, resume=False).runs == []
    assert len(path.read_text().splitlines()) == 1


def test_without_a_valid_threshold_it_says_which_bound_would_be_and_writes_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    output = tmp_path / "exit.yaml"
    with pytest.raises(ValueError, match=r"use --epsilon 0\.\d+ or more, or more questions"):
        run_with(monkeypatch, output, 10, "--thresholds", "0.5")
    assert not output.exists()
    assert (tmp_path / "exit.json").exists()
