"""Checkpoints that are whole, and stopping on signals."""

import json
import os
import signal
from pathlib import Path

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from training.rollouts.counters import Counters
from training.rollouts.seeds import row_seed
from training.run.checkpoints import (
    SealCheckpoints,
    StopOnSignal,
    last_sealed,
    remove_unsealed,
    restore_counters,
)
from training.run.plots import draw_curves


def checkpoint(output: Path, step: int) -> Path:
    folder = output / f"checkpoint-{step}"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def arguments(output: Path) -> TrainingArguments:
    return TrainingArguments(output_dir=str(output), use_cpu=True, report_to=[])


def seal(output: Path, step: int, counters: Counters) -> None:
    state = TrainerState(global_step=step, is_world_process_zero=True)
    SealCheckpoints(counters).on_save(arguments(output), state, TrainerControl())


def test_only_a_sealed_checkpoint_is_resumed_from(tmp_path: Path) -> None:
    for step in (9, 10, 20):
        checkpoint(tmp_path, step)
    assert last_sealed(tmp_path) is None
    seal(tmp_path, 9, Counters())
    seal(tmp_path, 10, Counters())
    assert last_sealed(tmp_path) == tmp_path / "checkpoint-10"  # by number, not by name


def test_what_an_interrupted_save_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    for step in (10, 20):
        checkpoint(tmp_path, step)
    seal(tmp_path, 10, Counters())
    (tmp_path / "checkpoint-best").mkdir()  # somebody's own folder
    assert remove_unsealed(tmp_path) == [tmp_path / "checkpoint-20"]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-best"]


def test_counters_come_back_from_the_seal(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, 10)
    seal(tmp_path, 10, Counters(rollouts=64, completion_tokens=5000, probe_tokens=300))
    assert json.loads((folder / "stepgrpo.json").read_text())["step"] == 10
    counters = Counters()
    restore_counters(folder, counters)
    assert counters == Counters(rollouts=64, completion_tokens=5000, probe_tokens=300)


def after_step(stop: StopOnSignal, step: int, output: Path) -> TrainerControl:
    control = TrainerControl()
    stop.on_step_end(arguments(output), TrainerState(global_step=step), control)
    return control


def test_a_signal_saves_and_stops_only_where_a_generation_begins(tmp_path: Path) -> None:
    stop = StopOnSignal(steps_per_generation=4)
    with stop.listening():
        assert not after_step(stop, 4, tmp_path).should_save
        os.kill(os.getpid(), signal.SIGTERM)
        assert not after_step(stop, 5, tmp_path).should_training_stop
        control = after_step(stop, 8, tmp_path)
        assert control.should_save
        assert control.should_training_stop
    assert stop.signal is signal.SIGTERM


def test_a_second_signal_ends_at_once_and_the_old_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    stop = StopOnSignal(1)
    with stop.listening():
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before


def test_seeds_depend_on_run_step_rank_and_row_and_on_nothing_else() -> None:
    places = [("train", step, rank, row) for step in range(4) for rank in range(3) for row in "ab"]
    seeds = {row_seed(run, *place) for run in range(3) for place in places}
    assert len(seeds) == 3 * len(places)
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert row_seed(7, "train", 3, 0, 5) == 1803417213


def test_curves_are_drawn_from_what_was_logged_and_skip_what_is_not_finite(tmp_path: Path) -> None:
    history = [{"step": step, "reward": 0.1 * step, "loss": float("nan")} for step in range(5)]
    draw_curves(history, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    draw_curves([{"step": 1, "train_runtime": 3.0}], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
