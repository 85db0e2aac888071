"""The port at which the processes of a run meet: a free one, or an error that names it."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from stepgrpo_core.errors import InvalidSetting
from training.config.layers import PRESETS
from training.run.ports import choose_port

ROOT = Path(__file__).parents[2]


def test_runs_that_start_in_one_moment_choose_different_free_ports() -> None:
    chosen = set()
    for given in ({}, {"MASTER_PORT": "0"}, {"MASTER_PORT": "auto"}, {"MASTER_PORT": ""}):
        environment: dict[str, str] = dict(given)
        choose_port(environment)
        chosen.add(environment["MASTER_PORT"])
    assert len(chosen) > 1
    assert "29500" not in chosen


def test_a_port_that_is_set_stays_and_one_in_use_is_named_with_a_remedy() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        with pytest.raises(InvalidSetting, match=f"MASTER_PORT='{port}' .* unset it"):
            choose_port({"MASTER_PORT": port})
        choose_port(launched := {"MASTER_PORT": port, "RANK": "0"})  # its launcher listens there
        assert launched["MASTER_PORT"] == port
    with pytest.raises(InvalidSetting, match="MASTER_PORT='x'"):
        choose_port({"MASTER_PORT": "x"})
    choose_port(environment := {"MASTER_PORT": port})
    assert environment["MASTER_PORT"] == port


def test_a_command_says_which_port_is_in_use_in_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = subprocess.run(
            [sys.executable, "-m", "training.cli", "grpo", "--config", "demo", "--dry-run"],
            check=False,
            env={"MASTER_PORT": str(taken.getsockname()[1]), "PATH": "/usr/bin:/bin"},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 1
    assert done.stderr.startswith("stepgrpo-train: MASTER_PORT=")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["one-gpu", "eight-gpus-fsdp2"])
def test_presets_of_one_machine_leave_the_port_to_the_launcher(name: str) -> None:
    assert (
        yaml.safe_load((PRESETS / "accelerate" / f"{name}.yaml").read_text())["main_process_port"]
        == 0
    )
