"""The Slurm script, run with stand-ins for Slurm's commands: what each machine would start."""

import os
import shutil
import subprocess
from pathlib import Path

from training.cli import build_parser
from training.config.layers import PRESETS

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "deploy" / "slurm" / "train.sbatch"
STUBS = {
    "scontrol": 'printf "gpu7\\ngpu9\\n"',
    "srun": 'shift; for SLURM_PROCID in 0 1; do export SLURM_PROCID; bash "${@:2}"; done',
}
ASKED = ["--config", "qwen3-14b", "output=/shared/run 1"]


def started(folder: Path, **environment: str) -> list[list[str]]:
    """Arguments of accelerate on each machine."""
    (folder / ".venv" / "bin").mkdir(parents=True)
    stubs = {folder / name: text for name, text in STUBS.items()}
    stubs[folder / ".venv" / "bin" / "accelerate"] = 'printf "%s\\n" "$@"; echo END'
    for path, text in stubs.items():
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)
    told = {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "SLURM_SUBMIT_DIR": str(folder),
        "SLURM_JOB_NODELIST": "gpu[7,9]",
        "SLURM_JOB_ID": "41234",
        "SLURM_NNODES": "2",
        "SLURM_GPUS_ON_NODE": "8",
        **environment,
    }
    bash = shutil.which("bash")
    assert bash
    found = subprocess.run(
        [bash, str(SCRIPT), *ASKED], env=told, capture_output=True, text=True, check=True
    )
    return [each.split("\n")[:-1] for each in found.stdout.removesuffix("END\n").split("END\n")]


def test_every_machine_starts_its_share_of_one_run_that_resumes(tmp_path: Path) -> None:
    first, second = started(tmp_path)
    assert first[:2] == ["launch", "--machine_rank"]
    assert [first[2], second[2]] == ["0", "1"]
    assert first[3:] == second[3:]
    options = dict(zip(first[1:13:2], first[2:13:2], strict=True))
    assert options["--num_processes"] == "16"
    assert options["--num_machines"] == "2"
    assert (options["--main_process_ip"], options["--main_process_port"]) == ("gpu7", "21234")
    assert (ROOT / options["--config_file"]).parent == PRESETS / "accelerate"
    assert first[13:16] == ["-m", "training.cli", "grpo"]
    args = build_parser().parse_args(first[15:])
    assert args.resume
    assert (args.config, args.overrides) == (["qwen3-14b"], ["output=/shared/run 1"])


def test_another_file_of_accelerate_may_be_named(tmp_path: Path) -> None:
    first, _ = started(tmp_path, ACCELERATE="mine.yaml", SLURM_GPUS_ON_NODE="4")
    assert first[first.index("--config_file") + 1] == "mine.yaml"
    assert first[first.index("--num_processes") + 1] == "8"


def test_accelerate_knows_the_options() -> None:
    from accelerate.commands.launch import launch_command_parser  # noqa: PLC0415 - slow

    known = {name for action in launch_command_parser()._actions for name in action.option_strings}
    text = SCRIPT.read_text()
    used = {word for word in text.split() if word.startswith("--") and "_" in word}
    assert used
    assert used <= known
