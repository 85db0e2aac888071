"""What lets a run live for days: stopping on signals, checkpoints that are known to be whole,
and errors that say where the last good one is.

A checkpoint counts only once it carries a *seal*, a small file written after everything else.
Killed or out of disk in the middle of a save, a run leaves an unsealed folder, which is never
resumed from and is removed at the next start.
"""

import contextlib
import dataclasses
import json
import shutil
import signal
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from training.rollout_func import Counters

__all__ = [
    "NotFinite",
    "RunStopped",
    "SaveFailed",
    "Seals",
    "StopOnSignal",
    "guarded",
    "last_sealed",
    "remove_unsealed",
    "restore",
    "saved_message",
]

SEAL = "stepgrpo.json"
STOPPING = (signal.SIGTERM, signal.SIGINT)


class RunStopped(RuntimeError):
    """A run ended before its last step; the message says why and how to go on."""


class NotFinite(ArithmeticError):
    """The loss is NaN or infinite; no update was made with it."""


class SaveFailed(RuntimeError):
    """A checkpoint could not be written; it carries no seal."""


def guarded(base: type[Any]) -> type[Any]:
    """TRL's trainer `base`, but a loss that is not finite stops the run before it reaches the
    weights (NotFinite), and a save that fails says so (SaveFailed)."""

    class Guarded(base):  # type: ignore[misc]
        def compute_loss(self, *args: Any, **options: Any) -> torch.Tensor:
            loss: torch.Tensor = super().compute_loss(*args, **options)
            if not torch.isfinite(loss):
                raise NotFinite(f"the loss of step {self.state.global_step + 1} is {loss.item()}")
            return loss

        def _save_checkpoint(self, *args: Any, **options: Any) -> None:
            try:
                super()._save_checkpoint(*args, **options)
            except Exception as error:  # torch and safetensors each have their own
                step = self.state.global_step
                raise SaveFailed(
                    f"checkpoint-{step} could not be written ({error}): free some space"
                ) from error

    return Guarded


def saved_message(output: Path) -> str:
    """What a stopped run left, and how to go on."""
    last = last_sealed(output)
    if last is None:
        return "no checkpoint had been saved"
    return f"the last good checkpoint is {last}; go on with --resume"


class StopOnSignal(TrainerCallback):  # type: ignore[misc]
    """SIGTERM or SIGINT: finish the step, save, stop. A second signal ends at once.

    A step is only left where a new generation begins: completions that wait for their update are
    not part of a checkpoint.
    """

    def __init__(self, steps_per_generation: int) -> None:
        self._steps = steps_per_generation
        self.signal: signal.Signals | None = None

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Handles the signals while active; main thread only."""
        before = {each: signal.signal(each, self._handle) for each in STOPPING}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    def _handle(self, number: int, frame: types.FrameType | None) -> None:
        del frame
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
        print(f"\n{self.signal.name}: saving after this step; once more ends at once", flush=True)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Save and stop if any rank got a signal; all ranks decide alike."""
        del args
        asked = any(gather_object([self.signal is not None]))
        if asked and state.global_step % self._steps == 0:
            control.should_save = control.should_training_stop = True


class Seals(TrainerCallback):  # type: ignore[misc]
    """Seals every checkpoint when all of it is written, with our own counters in the seal."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """The folder is complete: say so."""
        del control
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            partial = folder / f"{SEAL}.partial"
            seal = {"step": state.global_step, "counters": dataclasses.asdict(self._counters)}
            partial.write_text(json.dumps(seal) + "\n", encoding="utf-8")
            partial.replace(folder / SEAL)


def last_sealed(output: Path) -> Path | None:
    """The newest whole checkpoint below `output`."""
    sealed = [folder for folder in _checkpoints(output) if (folder / SEAL).exists()]
    return max(sealed, key=_step, default=None)


def remove_unsealed(output: Path) -> list[Path]:
    """Delete what an interrupted save left; returns the folders."""
    broken = [folder for folder in _checkpoints(output) if not (folder / SEAL).exists()]
    for folder in broken:
        shutil.rmtree(folder)
    return broken


def restore(checkpoint: Path, counters: Counters) -> None:
    """Continue counting where `checkpoint` was."""
    found = json.loads((checkpoint / SEAL).read_text(encoding="utf-8"))["counters"]
    for name, value in found.items():
        setattr(counters, name, value)


def _checkpoints(output: Path) -> list[Path]:
    return [each for each in output.glob("checkpoint-*") if each.name.rpartition("-")[2].isdigit()]


def _step(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])
