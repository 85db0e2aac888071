"""`calibrate-exit` on the demo model: the traces are replays of real exits."""

import json
from pathlib import Path

import openai
import pytest

from service.config.thresholds import read_thresholds
from tests.support.chat import chat
from tests.support.runs import run
from tests.support.servers import MODEL, OURS, running

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.background]


def test_it_chooses_a_threshold_for_the_server(tmp_path: Path) -> None:
    output = tmp_path / "exit.yaml"
    command = ["-m", "training.cli", "calibrate-exit", "--model", str(MODEL), "--demo", "40"]
    command += ["--output", str(output), "--epsilon", "0.3", "--dtype", "float32"]
    result = run(*command, "--thresholds", "0.5", "0.95", "0.999", "--max-tokens", "300")
    assert result.returncode == 0, result.stderr[-3000:]
    chosen = read_thresholds(output)
    assert chosen.settings["policy"] == "confidence"
    assert chosen.settings["threshold"] in {0.5, 0.95, 0.999}
    figures = json.loads((tmp_path / "exit.json").read_text())
    found = figures["policies"]["confidence"]
    assert (figures["chosen"], found["questions"]) == ("confidence", 40)
    left = [each["tokens_left"] for each in found["candidates"]]
    assert left == sorted(left, reverse=True)
    assert left[-1] < 0.6
    traces = tmp_path / "exit.traces.jsonl"
    lines = traces.read_text().splitlines(keepends=True)
    runs = [json.loads(line) for line in lines[1:]]
    assert len(runs) == 40
    assert sum(each["right"] for each in runs) >= 30
    for each in runs:
        tokens = [exit_["tokens"] for exit_ in each["exits"]["confidence"]]
        assert each["tokens"] >= tokens[0] >= tokens[1] >= tokens[2] > 0
        if tokens[0] == tokens[1]:  # one exit of two candidates has one answer
            assert each["exits"]["confidence"][0] == each["exits"]["confidence"][1]
    traces.write_text("".join(lines[:-2]) + lines[-2][:9])
    again = run(*command, "--thresholds", "0.5", "0.95", "0.999", "--max-tokens", "300", "--resume")
    assert again.returncode == 0, again.stderr[-3000:]
    assert "40 of 40 questions" in again.stdout
    assert traces.read_text().splitlines(keepends=True)[:-2] == lines[:-2]
    served(tmp_path, output, chosen.settings["threshold"])


def served(tmp_path: Path, file: Path, threshold: float) -> None:
    """The server takes the file, and says where its promise holds."""
    with running(OURS, tmp_path / "server.log", "--exit-thresholds", str(file)) as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none")
        block = chat(client, xargs=None, temperature=0.6).stepgrpo
        assert block["policy"] == "confidence"
        promise = {"risk": "lost", "epsilon": 0.3, "delta": 0.1}
        assert block["settings"] == {"threshold": threshold, "guarantee": promise}
        other = chat(client, xargs=None, temperature=1.0).stepgrpo
        assert (other["policy"], other["abstained"]) == ("none", "uncalibrated")
