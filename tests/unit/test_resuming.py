"""Resuming: damaged checkpoints, and the last step."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainingArguments

from tests.support.runs.small import STEPS, trainer
from training.rollouts.counters import Counters
from training.run.checkpoints import (
    CheckpointsDamaged,
    SaveFailed,
    SealCheckpoints,
    last_intact,
    restore_counters,
    saved_message,
)
from training.run.seals import SEAL


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output of four steps with the sealed checkpoints of two and of four."""
    output = tmp_path_factory.mktemp("resuming") / "run"
    trainer(output).train()
    return output


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    output = tmp_path / "run"
    subprocess.run(["cp", "-a", str(run), str(output)], check=True)
    return output


def halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


def no_mapping(path: Path) -> None:
    path.write_text("[]")


def empty_mapping(path: Path) -> None:
    path.write_text("{}")


def other_step(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "step": 3}))


def other_counters(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "counters": {"rollouts": "7"}}))


DAMAGES: list[tuple[str, Callable[[Path], None], str]] = [
    ("model.safetensors", halve, "bytes instead of"),
    ("model.safetensors", flip, "has changed"),
    ("model.safetensors", Path.unlink, "is missing"),
    ("model.safetensors", folder_instead, "model.safetensors"),
    ("optimizer.pt", halve, "bytes instead of"),
    ("optimizer.pt", empty, "has 0 bytes"),
    ("scheduler.pt", flip, "has changed"),
    ("scheduler.pt", Path.unlink, "is missing"),
    ("trainer_state.json", halve, "bytes instead of"),
    ("config.json", flip, "has changed"),
    ("rng_state.pth", flip, "has changed"),
    ("rng_state.pth", Path.unlink, "is missing"),
    (SEAL, halve, "cannot be read"),
    (SEAL, empty, "cannot be read"),
    (SEAL, no_mapping, "is not a seal"),
    (SEAL, empty_mapping, "is of step None"),
    (SEAL, other_step, "is of step 3"),
    (SEAL, other_counters, "not integers"),
]


@pytest.mark.parametrize(("name", "damage", "fault"), DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_good_one_before_it_is_used(
    name: str,
    damage: Callable[[Path], None],
    fault: str,
    copy: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    damage(copy / "checkpoint-4" / name)
    assert last_intact(copy) == copy / "checkpoint-2"
    said = capsys.readouterr().out
    assert f"{copy / 'checkpoint-4'} is damaged ({name}" in said
    assert fault in said
    assert not (copy / "checkpoint-4").exists()
    assert (copy / "_damaged-checkpoint-4").is_dir()


def test_a_run_trains_on_from_the_checkpoint_before_a_damaged_one(copy: Path) -> None:
    halve(copy / "checkpoint-4" / "optimizer.pt")
    trainer(copy).train(resume_from_checkpoint=str(last_intact(copy)))
    assert last_intact(copy) == copy / "checkpoint-4"
    assert (copy / "_damaged-checkpoint-4").is_dir()


def test_without_a_whole_checkpoint_there_is_one_error_that_names_every_fault(copy: Path) -> None:
    halve(copy / "checkpoint-4" / "model.safetensors")
    (copy / "checkpoint-2" / "optimizer.pt").unlink()
    with pytest.raises(CheckpointsDamaged) as caught:
        last_intact(copy)
    assert "checkpoint-4: model.safetensors has" in str(caught.value)
    assert "checkpoint-2: optimizer.pt is missing" in str(caught.value)
    assert (copy / "checkpoint-4").exists()  # nothing was moved


def test_a_seal_of_an_older_version_is_resumed_from(copy: Path) -> None:
    old = {"step": 4, "counters": {"rollouts": 5, "completion_tokens": 9}}
    (copy / "checkpoint-4" / SEAL).write_text(json.dumps(old) + "\n")
    assert last_intact(copy) == copy / "checkpoint-4"
    restore_counters(copy / "checkpoint-4", counters := Counters())
    assert counters == Counters(rollouts=5, completion_tokens=9)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("model.safetensors", halve),
        ("model.safetensors", empty),
        ("optimizer.pt", halve),
        ("rng_state.pth", empty),
        ("trainer_state.json", halve),
        ("config.json", empty),
    ],
)
def test_under_a_seal_of_an_older_version_what_is_cut_short_is_found(
    name: str, damage: Callable[[Path], None], copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for step in (2, 4):
        old: dict[str, object] = {"step": step, "counters": {}}
        (copy / f"checkpoint-{step}" / SEAL).write_text(json.dumps(old))
    damage(copy / "checkpoint-4" / name)
    assert last_intact(copy) == copy / "checkpoint-2"
    assert f"damaged ({name} cannot be read" in capsys.readouterr().out


def test_a_checkpoint_that_cannot_be_loaded_is_named_in_one_line(copy: Path) -> None:
    for name in ("model.safetensors", "optimizer.pt", "rng_state.pth"):
        (copy / "checkpoint-4" / name).rename(copy / name)
        (copy / "checkpoint-4" / name).write_bytes(b"something else")
        with pytest.raises(CheckpointsDamaged, match=r"checkpoint-4 cannot be loaded \(.*$"):
            trainer(copy, steps=STEPS + 2).train(resume_from_checkpoint=str(copy / "checkpoint-4"))
        (copy / name).rename(copy / "checkpoint-4" / name)


def test_a_seal_lists_every_file_with_its_size_and_is_synced_last(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fsync

    def recorded(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").resolve().name)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", recorded)
    again = trainer(copy / "again", steps=2)
    again.train()
    folder = copy / "again" / "checkpoint-2"
    listed = json.loads((folder / SEAL).read_text())["files"]
    names = {each.name for each in folder.iterdir()} - {SEAL}
    assert set(listed) == names
    assert all(listed[name]["bytes"] == (folder / name).stat().st_size for name in names)
    place = synced.index(f"{SEAL}.partial")
    assert names <= set(synced[:place])
    assert set(synced[place + 1 :]) == {"checkpoint-2", "again"}


def test_a_disk_that_refuses_the_seal_is_a_failed_save(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SaveFailed, match="checkpoint-2 could not be sealed"):
        trainer(copy / "full", steps=2).train()


def test_the_message_of_a_stopped_run_never_names_a_checkpoint_of_other_sizes(copy: Path) -> None:
    halve(copy / "checkpoint-4" / "optimizer.pt")
    assert f"the last good checkpoint is {copy / 'checkpoint-2'}" in saved_message(copy)


@pytest.mark.parametrize("steps", [STEPS, STEPS - 1])
def test_a_run_resumed_at_its_last_step_makes_no_other(steps: int, copy: Path) -> None:
    again = trainer(copy, steps=steps)
    again.train(resume_from_checkpoint=str(copy / "checkpoint-4"))
    assert again.state.global_step == STEPS
    assert {each.name for each in copy.glob("checkpoint-*")} == {"checkpoint-2", "checkpoint-4"}
    saved = load_file(copy / "checkpoint-4" / "model.safetensors")
    now = again.model.state_dict()
    assert all(torch.equal(now[name], value) for name, value in saved.items())
    assert not any("train_runtime" in row for row in again.state.log_history)


def test_a_run_with_more_steps_goes_on(copy: Path) -> None:
    again = trainer(copy, steps=STEPS + 1)
    again.train(resume_from_checkpoint=str(copy / "checkpoint-4"))
    assert again.state.global_step == STEPS + 1


def test_a_run_goes_on_where_a_generation_begins_or_after_its_end(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert last_intact(copy, every=3, end=4) == copy / "checkpoint-4"
    with pytest.raises(CheckpointsDamaged, match="none fits"):
        last_intact(copy, every=3, end=9)
    (copy / "checkpoint-3").mkdir()
    SealCheckpoints(Counters()).on_save(
        TrainingArguments(output_dir=str(copy), use_cpu=True, report_to=[]),
        trainer(copy).state.__class__(global_step=3, is_world_process_zero=True),
        trainer(copy).control,
    )
    assert last_intact(copy, every=3, end=9) == copy / "checkpoint-3"
    assert "checkpoint-4 ended within a generation" in capsys.readouterr().out
