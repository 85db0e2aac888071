"""`stepgrpo-train eval` on real vLLM: whole, and stopped, killed, cut and resumed."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.servers import MODEL
from tests.support.zygote import Forked, killed
from training.evaluation.records import Record, read_records

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.background]

QUESTIONS, SAMPLES = 24, 4
BASE, EXITS = "demo-base", "demo-base+confidence"


def evaluation(output: Path) -> contextlib.AbstractContextManager[Forked]:
    """The command, killed at the end; its output is one stream."""
    process = Forked(
        "training.cli",
        [
            *("eval", "--output", str(output)),
            *("--model", str(MODEL), "--policy", "none", "--policy", "confidence"),
            *("--baseline", str(MODEL), "--tasks", "demo", "--keep-completions"),
            *("--limit", str(QUESTIONS), "--samples", str(SAMPLES)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1"},
    )
    return killed(process)


def finish(output: Path) -> str:
    """Evaluate to the end; what was printed."""
    with evaluation(output) as process:
        printed: str = process.communicate(timeout=900)[0]
        assert process.returncode == 0, printed[-3000:]
    return printed


def lines(output: Path, contender: str) -> int:
    """Questions that stand in the contender's file."""
    path = output / contender / "demo.jsonl"
    return max(path.read_bytes().count(b"\n") - 1, 0) if path.exists() else 0


def wait_for(process: Forked, true: Callable[[], bool]) -> None:
    """Until something holds while the command runs."""
    deadline = time.monotonic() + 600
    while not true():
        assert process.poll() is None, process.communicate()[0][-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.005)


@dataclass(frozen=True)
class Evaluated:
    whole: Path
    printed: str
    resumed: Path
    stopped: str
    """What the stopped one printed."""
    left: tuple[int, int]
    """Questions in the first and the second file after the interruptions."""


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    """One evaluation whole; another stopped in its first contender, killed in its second, its last
    line cut, and resumed."""
    folder = tmp_path_factory.mktemp("evaluation")
    whole, resumed = folder / "whole", folder / "resumed"
    printed = finish(whole)
    with evaluation(resumed) as process:
        wait_for(process, (resumed / BASE / "demo.jsonl").exists)  # it has just begun
        process.send_signal(signal.SIGTERM)
        stopped = process.communicate(timeout=120)[0]
        assert process.returncode == 1, stopped[-3000:]
    first = lines(resumed, BASE)
    with evaluation(resumed) as process:
        wait_for(process, lambda: lines(resumed, EXITS) > 1)  # one of them will be cut
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=120)
    path = resumed / EXITS / "demo.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    left = first, lines(resumed, EXITS)
    assert "dropped an incomplete last line" in finish(resumed)
    return Evaluated(whole, printed, resumed, stopped, left)


def records(output: Path, contender: str) -> list[Record]:
    return read_records(output / contender / "demo.jsonl")


def test_a_resumed_evaluation_reports_what_a_whole_one_does_byte_for_byte(
    evaluated: Evaluated,
) -> None:
    assert evaluated.left[0] < QUESTIONS
    assert 0 < evaluated.left[1] < QUESTIONS
    for contender in (BASE, EXITS):
        assert records(evaluated.resumed, contender) == records(evaluated.whole, contender)
    for name in ("results.md", "tradeoff.png"):
        assert (evaluated.resumed / name).read_bytes() == (evaluated.whole / name).read_bytes()
    whole, resumed = (
        json.loads((each / "results.json").read_text())
        for each in (evaluated.whole, evaluated.resumed)
    )
    assert whole.pop("run") != resumed.pop("run")
    assert whole == resumed


def test_a_signal_keeps_what_was_finished_and_says_how_to_go_on(evaluated: Evaluated) -> None:
    last = evaluated.stopped.splitlines()[-1]
    assert last.startswith("stepgrpo-train: stopped; what was finished is kept: run the same")


def test_every_question_has_its_samples_with_seeds_shared_by_contenders(
    evaluated: Evaluated,
) -> None:
    base, exits = records(evaluated.whole, BASE), records(evaluated.whole, EXITS)
    assert len(base) == QUESTIONS * SAMPLES
    assert [(r.question, r.sample, r.seed) for r in base] == [
        (r.question, r.sample, r.seed) for r in exits
    ]
    assert len({r.seed for r in base}) == len(base)


def test_completions_are_what_their_records_say(evaluated: Evaluated) -> None:
    cut: list[tuple[Record, Record]] = []
    natural: list[tuple[Record, Record]] = []
    for base, exits in zip(
        records(evaluated.whole, BASE), records(evaluated.whole, EXITS), strict=True
    ):
        assert base.text
        assert exits.text
        assert base.exit == "natural"
        assert base.probes == base.probe_tokens == base.discarded_tokens == 0
        assert base.tokens > base.reasoning_tokens > 0
        (cut if exits.exit == "confident" else natural).append((base, exits))
    assert len(cut) > len(natural)
    for base, exits in cut:
        assert exits.probes > 0
        assert exits.probe_tokens > 0
        assert base.text
        assert exits.text
        # the same seed: the same thinking, up to the exit
        thinking = exits.text.partition("\n</think>")[0]
        assert base.text.startswith(thinking)
    for base, exits in natural:
        assert exits.text == base.text


def test_the_report_says_what_was_used_and_that_exits_save_tokens(evaluated: Evaluated) -> None:
    text = (evaluated.whole / "results.md").read_text()
    assert "At most **900 tokens**" in text
    assert "dtype float32" in text
    assert text in evaluated.printed
    whole: dict[str, Any] = json.loads((evaluated.whole / "results.json").read_text())
    made = whole["made"][BASE]["demo"]["made_with"]
    assert made["dtype"] == "float32"
    assert made["versions"]["vllm"]
    found = whole["results"]["demo"]
    assert found[BASE]["accuracy"]["value"] > 0.8
    assert found[EXITS]["versus"]["ratio_of_means"]["high"] < 0.8
    assert found[EXITS]["versus"]["net_ratio_of_means"]["high"] < 0.9
    assert found[EXITS]["unscored"] == 0
