"""The batch driver of training and the server deliver the same tokens."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.runs import run
from tests.support.servers import MODEL, Server
from training.demo.world import sample_problems

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.background]

COUNT = 12


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    result = run("-m", "tests.support.runs.offline_exits", str(COUNT))
    assert result.returncode == 0, result.stderr[-3000:]
    made: list[dict[str, Any]] = json.loads(result.stdout.partition("RESULT ")[2].splitlines()[0])
    return made


def test_a_calibration_records_what_the_policy_sees(rows: list[dict[str, Any]]) -> None:
    confident = [row for row in rows if row["reason"] == "confident"]
    assert confident
    for row in confident:
        # <think> comes before the reasoning, and a token of it comes with the closing.
        place = row["starts"].index(row["reasoning_tokens"])
        assert row["steps"] == place + 1
        assert row["confidences"][place] == pytest.approx(row["confidence"], abs=1e-2)
    asked = [
        (start, confidence is not None)
        for row in rows
        for start, confidence in zip(row["starts"], row["cramped"], strict=True)
    ]
    # 1024 of context less 880 of the trial, and of the prompt and what induces 30 to 60.
    assert all(known for start, known in asked if start < 1024 - 880 - 60)
    assert not any(known for start, known in asked if start > 1024 - 880 - 30)
    assert len({known for _, known in asked}) == 2


def test_the_server_delivers_what_the_offline_driver_does(
    server: Server, rows: list[dict[str, Any]]
) -> None:
    assert {row["reason"] for row in rows} >= {"confident"}
    for row, problem in zip(rows, sample_problems(7, "test", COUNT), strict=True):
        response = httpx.post(
            f"{server.url}/v1/chat/completions",
            json={
                "model": "demo-base",
                "temperature": 0,
                "seed": 0,  # no probe is refused because of others
                "max_tokens": 900,
                "messages": [{"role": "user", "content": problem.prompt}],
                "return_token_ids": True,
                "vllm_xargs": {"exit_policy": "confidence"},
            },
            timeout=60,
        ).json()
        assert response["choices"][0]["token_ids"] == row["ids"]
        block = response["stepgrpo"]
        assert block["exit_reason"] == row["reason"]
        assert (block["steps"], block["reasoning_tokens"]) == (
            row["steps"],
            row["reasoning_tokens"],
        )
        assert block["confidence"] == pytest.approx(
            row["confidence"], abs=1e-2
        )  # other batches, other sums


def test_calibrate_writes_a_file_that_the_server_reads(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(
        "".join(
            json.dumps({"prompt": p.prompt}) + "\n" for p in sample_problems(1, "validation", 8)
        )
    )
    output = tmp_path / "calibration.json"
    result = run(
        "-m",
        "training.cli",
        "calibrate",
        "--model",
        str(MODEL),
        "--prompts",
        str(prompts),
        "--samples",
        "4",
        "--output",
        str(output),
    )
    assert result.returncode == 0, result.stderr[-3000:]
    found = json.loads(output.read_text())
    assert found["model"] == "demo-base"
    assert sum(len(each["completion_tokens"]) for each in found["bins"]) == 32
    assert found["markers"] == ["Wait", "Alternatively"]
    assert found["trials"]["probe_max_tokens"] == 20
    for each in found["bins"]:
        for starts, trials in zip(each["steps"], each["confidences"], strict=True):
            assert len(starts) == len(trials)
    assert max(max(trials, default=0) for each in found["bins"] for trials in each["confidences"])


def test_an_adapter_is_calibrated_as_it_is_served(tmp_path: Path) -> None:
    output = tmp_path / "calibration.json"
    model = str(MODEL.with_name("demo-step-grpo"))
    asked = ("--model", model, "--demo", "24", "--dtype", "float32", "--output", str(output))
    result = run("-m", "training.cli", "calibrate", *asked)
    assert result.returncode == 0, result.stderr[-3000:]
    found = json.loads(output.read_text())
    assert found["model"] == "demo-step-grpo"
    # Trained to stop: its base goes on for five steps as a rule.
    assert not any(starts for each in found["bins"] for starts in each["steps"])
