"""`calibrate-exit` on the demo model: the traces are replays of real exits."""

import json
from pathlib import Path

import pytest

from service.config.layers import read_yaml
from tests.support.runs import run
from tests.support.servers import MODEL

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def test_it_chooses_a_threshold_for_the_server(tmp_path: Path) -> None:
    output = tmp_path / "exit.yaml"
    command = ["-m", "training.cli", "calibrate-exit", "--model", str(MODEL), "--demo", "40"]
    command += ["--output", str(output), "--epsilon", "0.3", "--dtype", "float32"]
    result = run(*command, "--thresholds", "0.5", "0.95", "0.999", "--max-tokens", "300")
    assert result.returncode == 0, result.stderr[-3000:]
    _, chosen = read_yaml(output)
    assert chosen["policy"] == "confidence"
    assert chosen["threshold"] in {0.5, 0.95, 0.999}
    found = json.loads((tmp_path / "exit.json").read_text())
    assert found["questions"] == len(found["traces"]) == 40
    left = [each["tokens_left"] for each in found["candidates"]]
    assert left == sorted(left, reverse=True)
    assert left[-1] < 0.6
    assert sum(each["right"] for each in found["traces"]) >= 30
    for trace in found["traces"]:
        signals = [each["signal"] for each in trace["readings"]]
        assert signals == sorted(signals)
        assert all(each["tokens"] <= trace["tokens"] for each in trace["readings"])
