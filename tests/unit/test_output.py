"""The output folder: what a finished run leaves, and who holds it."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests.support.runs.small import STEPS, trainer
from training.config.schema import RunConfig, load_config
from training.run.checkpoints import (
    RunStopped,
)
from training.run.lock import FolderInUse, locked
from training.run.output import export, is_finished, locked_output, prepare_output, seal_output
from training.run.seals import SEAL

ROOT = Path(__file__).parents[2]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """An output of four steps with the sealed checkpoints of two and of four."""
    output = tmp_path / "run"
    trainer(output).train()
    return output


def halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def config(output: Path, *more: str) -> RunConfig:
    return load_config(["demo"], [f"output={output}", *more])


def test_a_finished_output_is_known_until_it_is_damaged_or_another_run_is_asked_for(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not is_finished(copy, config(copy))
    names = export(trainer(copy), copy)
    assert {"model.safetensors", "config.json"} <= set(names)
    (copy / "README.md").write_text("card")
    seal_output(copy, config(copy), names, STEPS)
    assert is_finished(copy, config(copy))
    assert not is_finished(copy, config(copy, "trl.max_steps=100"))
    (copy / "notes.txt").write_text("somebody's own")
    assert is_finished(copy, config(copy))
    halve(copy / "model.safetensors")
    assert not is_finished(copy, config(copy))
    assert "model.safetensors has" in capsys.readouterr().out


def test_a_finished_run_is_not_written_over_even_without_its_checkpoints(tmp_path: Path) -> None:
    names = export(trainer(tmp_path), tmp_path)
    seal_output(tmp_path, config(tmp_path), names, STEPS)
    with pytest.raises(FileExistsError, match="reached its end; pass --resume"):
        prepare_output(tmp_path, config(tmp_path), resume=False)
    other = config(tmp_path, "calibration_prompts=0")
    with pytest.raises(FileExistsError, match="no checkpoint to resume from"):
        prepare_output(tmp_path, other, resume=True)
    assert is_finished(tmp_path, config(tmp_path))


def test_damaged_checkpoints_are_not_written_over_without_resume(copy: Path) -> None:
    for folder in copy.glob("checkpoint-*"):
        halve(folder / SEAL)
    with pytest.raises(FileExistsError, match="reached checkpoint-4"):
        prepare_output(copy, config(copy), resume=False)


def test_a_run_that_wrote_no_weights_ends_with_an_error(tmp_path: Path) -> None:
    silent = trainer(tmp_path)
    silent.save_model = lambda *_, **__: None
    with pytest.raises(
        RunStopped, match=r"no weights were written to .* \(no file\).*FULL_STATE_DICT"
    ):
        export(silent, tmp_path)

    def hollow(folder: str, **_: object) -> None:
        Path(folder).mkdir()
        save_file({}, Path(folder) / "model.safetensors")

    silent.save_model = hollow
    with pytest.raises(RunStopped, match=r"no weights were written to .* \(model.safetensors\)"):
        export(silent, tmp_path)
    assert not (tmp_path / "model.safetensors").exists()


def test_an_export_that_was_interrupted_leaves_nothing_half_written(tmp_path: Path) -> None:
    (tmp_path / "export.partial").mkdir()
    (tmp_path / "export.partial" / "model.safetensors").write_bytes(b"half")
    export(trainer(tmp_path), tmp_path)
    assert load_file(tmp_path / "model.safetensors")
    assert not (tmp_path / "export.partial").exists()


def grpo(settings: RunConfig, *, resume: bool) -> None:
    from training.grpo.train import train  # noqa: PLC0415 - loads vLLM

    train(settings, resume=resume)


def fine_tuning(settings: RunConfig, *, resume: bool) -> None:
    from training.sft.train import run_sft  # noqa: PLC0415 - loads vLLM

    run_sft(settings, resume=resume)


RUNS = [
    (grpo, ("demo",), ()),
    (
        fine_tuning,
        ("demo", "methods/deer-sft"),
        ("sft.trl.bf16=false", "sft.trl.max_length=1024"),
    ),
]


@pytest.mark.parametrize(("start", "presets", "more"), RUNS)
def test_a_run_that_is_finished_or_whose_folder_is_held_does_not_begin(
    start: Callable[..., None],
    presets: tuple[str, ...],
    more: tuple[str, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "run"
    model = ROOT / "models" / "demo-base"
    settings = load_config(presets, [f"output={output}", f"model.name={model}", *more])
    with locked(output), pytest.raises(FolderInUse, match=f"process {os.getpid()} on "):
        start(settings, resume=True)
    assert {each.name for each in output.iterdir()} == {"_stepgrpo.lock"}
    seal_output(output, settings, export(trainer(output), output), STEPS)
    start(settings, resume=True)
    assert capsys.readouterr().out.endswith("holds the finished run: nothing to do\n")
    with pytest.raises(FileExistsError, match="reached its end; pass --resume"):
        start(settings, resume=False)


HOLDER = (
    "import sys, time; from pathlib import Path; from training.run.lock import locked\n"
    "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
)


def test_a_second_run_is_told_who_holds_the_folder_and_leaves_it_untouched(tmp_path: Path) -> None:
    output = tmp_path / "run"
    started = [sys.executable, "-c", HOLDER, str(output)]
    with subprocess.Popen(started, stdout=subprocess.PIPE, cwd=ROOT) as holder:
        try:
            assert holder.stdout
            assert holder.stdout.readline() == b"held\n"
            before = sorted((each.name, each.stat().st_mtime_ns) for each in output.iterdir())
            told = pytest.raises(FolderInUse, match=f"in use by process {holder.pid} on ")
            with told, locked_output(output):
                prepare_output(output, config(output), resume=True)
            after = sorted((each.name, each.stat().st_mtime_ns) for each in output.iterdir())
            assert after == before
        finally:
            holder.kill()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:  # death releases it
        try:
            with locked(output):
                return
        except FolderInUse:
            time.sleep(0.05)
    pytest.fail("the lock outlived its process")
