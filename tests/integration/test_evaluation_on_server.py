"""`stepgrpo-train eval --server` with the guarded server: a key, and its limits."""

import subprocess
from pathlib import Path

import pytest

from tests.support.runs import run
from tests.support.servers import MODEL, Server
from tests.support.service.keys import SEATS
from training.evaluation.records import Record, read_records

pytestmark = [pytest.mark.integration, pytest.mark.slow]

CONTENDERS = ("demo-base", "demo-base+confidence")


def read(output: Path, contender: str) -> list[Record]:
    return read_records(output / contender / "demo.jsonl")


def on_server(server: Server, output: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = ["-m", "training.cli", "eval", "--output", str(output), "--server", server.url]
    command += ["--model", str(MODEL), "--policy", "none", "--policy", "confidence", *more]
    command += ["--baseline", str(MODEL), "--tasks", "demo", "--limit", str(SEATS)]
    return run(*command, "--samples", "3")


def test_a_server_with_keys_and_limits_completes_an_evaluation_whose_files_hold_no_key(
    guarded: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More completions than the key may have at once wait for their turn."""
    key = "filed-secret-1"
    monkeypatch.setenv("OPENAI_API_KEY", key)
    made = on_server(guarded, tmp_path / "kept")
    assert made.returncode == 0, made.stdout + made.stderr
    assert key not in made.stdout + made.stderr
    files = [each for each in (tmp_path / "kept").rglob("*") if each.is_file()]
    assert {"results.md", "results.json", "failures.html"} <= {each.name for each in files}
    assert [each for each in files if key.encode() in each.read_bytes()] == []
    whole, exits = (read(tmp_path / "kept", name) for name in CONTENDERS)
    assert len(whole) == len(exits) == SEATS * 3
    assert all(each.correct is not None for each in (*whole, *exits))
    assert sum(each.tokens for each in exits) < sum(each.tokens for each in whole)
    refused = on_server(guarded, tmp_path / "refused", "--api-key", "wrong-secret")
    assert refused.returncode == 1
    assert "set OPENAI_API_KEY to an API key that it accepts" in refused.stderr
    assert "wrong-secret" not in refused.stdout + refused.stderr
