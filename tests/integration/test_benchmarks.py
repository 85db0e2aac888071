"""The benchmarks of the server run: on real servers, and over the scripted engine."""

from pathlib import Path

import pytest

from benchmarks.serving.open_streams import hold_open
from benchmarks.serving.wrapper import WAYS, held_by_streams, make_script
from benchmarks.serving.wrapper import measure as measure_wrapper
from benchmarks.shared.clients import Traffic, measure, write_problems
from tests.support.servers import Server
from training.demo.world import sample_problems

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.background]


def test_load_on_a_server_is_measured_and_graded(server: Server, tmp_path: Path) -> None:
    problems = sample_problems(5, "test", 8)
    path = write_problems(tmp_path / "problems.jsonl", problems)
    extra = {"vllm_xargs": {"exit_policy": "confidence"}}
    found = measure(server, Traffic(problems, path, 900, concurrency=4, extra=extra))
    assert found["failed"] == 0
    assert len(found["hits"]) == 8
    assert any(found["hits"])
    assert found["trial tokens"] > 0
    assert found["API process, µs per token"] > 0


def test_fixed_lengths_come_at_a_rate(server: Server, tmp_path: Path) -> None:
    problems = sample_problems(5, "test", 4)
    path = write_problems(tmp_path / "problems.jsonl", problems)
    found = measure(server, Traffic(problems, path, 16, fixed=True, rate=20.0))
    assert found["failed"] == 0
    assert found["tokens"] == 16


def test_open_streams_are_held_and_left(server: Server) -> None:
    found = hold_open(server, sample_problems(6, "test", 8, "hard"), {}, tokens_each=10)
    assert found["tokens each"] >= 10
    server.wait_idle(30)


def test_the_wrapper_is_measured_over_the_scripted_engine() -> None:
    script = make_script(120)
    times = measure_wrapper(script, streams=2, rounds=1)
    assert times.keys() == WAYS.keys()
    assert all(micros > 0 for (micros,) in times.values())
    sizes = held_by_streams(script, 4)
    assert sizes["none"] > sizes["bare"] > 0
