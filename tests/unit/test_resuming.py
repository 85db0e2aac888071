"""Resuming: damaged checkpoints, the last step, finished outputs, and who holds the folder."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file
from transformers import Qwen3Config, Qwen3ForCausalLM, Trainer, TrainingArguments

from training.config import RunConfig, load_config
from training.lock import FolderInUse, locked
from training.output import claimed, export, is_finished, prepare_output, seal_output
from training.rollout_func import Counters
from training.seals import SEAL
from training.survival import (
    CheckpointsDamaged,
    RunStopped,
    SaveFailed,
    Seals,
    guarded,
    last_whole,
    restore,
    saved_message,
)

ROOT = Path(__file__).parents[2]
STEPS = 4


def model() -> Qwen3ForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "head_dim": 8}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    return Qwen3ForCausalLM(Qwen3Config(vocab_size=32, **sizes, **heads))


def trainer(output: Path, *, steps: int = STEPS, base: type[Trainer] = Trainer) -> Any:
    rows = [{"input_ids": [1, 2, 3, each], "labels": [1, 2, 3, each]} for each in range(4, 20)]
    arguments = TrainingArguments(
        output_dir=str(output),
        max_steps=steps,
        save_steps=2,
        per_device_train_batch_size=2,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        save_total_limit=2,
    )
    return guarded(base)(
        model=model(),
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        callbacks=[Seals(Counters(rollouts=7))],
    )


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
    ("model.safetensors", flip, "other bytes than were saved"),
    ("model.safetensors", Path.unlink, "is missing"),
    ("model.safetensors", folder_instead, "model.safetensors"),
    ("optimizer.pt", halve, "bytes instead of"),
    ("optimizer.pt", empty, "has 0 bytes"),
    ("scheduler.pt", flip, "other bytes than were saved"),
    ("scheduler.pt", Path.unlink, "is missing"),
    ("trainer_state.json", halve, "bytes instead of"),
    ("config.json", flip, "other bytes than were saved"),
    ("rng_state.pth", flip, "other bytes than were saved"),
    ("rng_state.pth", Path.unlink, "is missing"),
    (SEAL, halve, "cannot be read"),
    (SEAL, empty, "cannot be read"),
    (SEAL, no_mapping, "is no seal"),
    (SEAL, empty_mapping, "is of step None"),
    (SEAL, other_step, "is of step 3"),
    (SEAL, other_counters, "no whole numbers"),
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
    assert last_whole(copy) == copy / "checkpoint-2"
    said = capsys.readouterr().out
    assert f"{copy / 'checkpoint-4'} is damaged ({name}" in said
    assert fault in said
    assert not (copy / "checkpoint-4").exists()
    assert (copy / "damaged-checkpoint-4").is_dir()


def test_a_run_trains_on_from_the_checkpoint_before_a_damaged_one(copy: Path) -> None:
    halve(copy / "checkpoint-4" / "optimizer.pt")
    trainer(copy).train(resume_from_checkpoint=str(last_whole(copy)))
    assert last_whole(copy) == copy / "checkpoint-4"
    assert (copy / "damaged-checkpoint-4").is_dir()


def test_without_a_whole_checkpoint_there_is_one_error_that_names_every_fault(copy: Path) -> None:
    halve(copy / "checkpoint-4" / "model.safetensors")
    (copy / "checkpoint-2" / "optimizer.pt").unlink()
    with pytest.raises(CheckpointsDamaged) as caught:
        last_whole(copy)
    assert "checkpoint-4: model.safetensors has" in str(caught.value)
    assert "checkpoint-2: optimizer.pt is missing" in str(caught.value)
    assert (copy / "checkpoint-4").exists()  # nothing was moved


def test_a_seal_of_an_older_version_is_resumed_from(copy: Path) -> None:
    old = {"step": 4, "counters": {"rollouts": 5, "completion_tokens": 9}}
    (copy / "checkpoint-4" / SEAL).write_text(json.dumps(old) + "\n")
    assert last_whole(copy) == copy / "checkpoint-4"
    restore(copy / "checkpoint-4", counters := Counters())
    assert counters == Counters(rollouts=5, completion_tokens=9)


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
    assert last_whole(copy, every=3, end=4) == copy / "checkpoint-4"
    with pytest.raises(CheckpointsDamaged, match="none fits"):
        last_whole(copy, every=3, end=9)
    (copy / "checkpoint-3").mkdir()
    Seals(Counters()).on_save(
        TrainingArguments(output_dir=str(copy), use_cpu=True, report_to=[]),
        trainer(copy).state.__class__(global_step=3, is_world_process_zero=True),
        trainer(copy).control,
    )
    assert last_whole(copy, every=3, end=9) == copy / "checkpoint-3"
    assert "checkpoint-4 ended within a generation" in capsys.readouterr().out


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


def test_damaged_checkpoints_are_not_written_over_without_resume(copy: Path) -> None:
    for folder in copy.glob("checkpoint-*"):
        halve(folder / SEAL)
    with pytest.raises(FileExistsError, match="reached checkpoint-4"):
        prepare_output(copy, config(copy), resume=False)


def test_a_run_that_wrote_no_weights_ends_with_an_error(tmp_path: Path) -> None:
    silent = trainer(tmp_path)
    silent.save_model = lambda *_, **__: None
    with pytest.raises(RunStopped, match=r"got no weights \(no file written\).*FULL_STATE_DICT"):
        export(silent, tmp_path)

    def hollow(folder: str, **_: object) -> None:
        Path(folder).mkdir()
        save_file({}, Path(folder) / "model.safetensors")

    silent.save_model = hollow
    with pytest.raises(RunStopped, match=r"got no weights \(model.safetensors written\)"):
        export(silent, tmp_path)
    assert not (tmp_path / "model.safetensors").exists()


def test_an_export_that_was_interrupted_leaves_nothing_half_written(tmp_path: Path) -> None:
    (tmp_path / "export.partial").mkdir()
    (tmp_path / "export.partial" / "model.safetensors").write_bytes(b"half")
    export(trainer(tmp_path), tmp_path)
    assert load_file(tmp_path / "model.safetensors")
    assert not (tmp_path / "export.partial").exists()


HOLDER = (
    "import sys, time; from pathlib import Path; from training.lock import locked\n"
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
            with told, claimed(output):
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
