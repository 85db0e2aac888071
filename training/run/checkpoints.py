"""What lets a run live for days: stopping on signals, checkpoints that are known to be whole,
and errors that say where the last good one is.

A checkpoint counts only once it carries a *seal*, a small file written after everything else.
Killed or out of disk in the middle of a save, a run leaves an unsealed folder, which is never
resumed from and is removed at the next start. A sealed one that is no longer as it was sealed is
set aside by name, and the newest whole one before it is resumed from.
"""

import contextlib
import dataclasses
import shutil
import signal
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from training.rollouts.counters import Counters
from training.run.seals import SEAL, Damaged, look_through, seal, verify

__all__ = [
    "CheckpointsDamaged",
    "NotFinite",
    "RunStopped",
    "SaveFailed",
    "Seals",
    "StopOnSignal",
    "guarded",
    "last_sealed",
    "last_whole",
    "remove_unsealed",
    "restore",
    "saved_message",
    "sealed",
]

STOPPING = (signal.SIGTERM, signal.SIGINT)


class RunStopped(RuntimeError):
    """A run ended before its last step; the message says why and how to go on."""


class NotFinite(ArithmeticError):
    """The loss is NaN or infinite; no update was made with it."""


class SaveFailed(RuntimeError):
    """A checkpoint could not be written; it carries no seal."""


class CheckpointsDamaged(RuntimeError):
    """No sealed checkpoint is as it was; the message names each with its fault."""


def guarded(base: type[Any]) -> type[Any]:
    """TRL's trainer `base`, but a loss that is not finite stops the run before it reaches the
    weights (NotFinite), a save that fails says so (SaveFailed), a checkpoint that cannot be loaded,
    too (CheckpointsDamaged), and a run that is resumed at its last step makes no other."""

    class Guarded(_resuming(base)):  # type: ignore[misc]
        def compute_loss(self, *args: Any, **options: Any) -> torch.Tensor:
            loss: torch.Tensor = super().compute_loss(*args, **options)
            if not torch.isfinite(loss):
                raise NotFinite(f"the loss of step {self.state.global_step + 1} is {loss.item()}")
            return loss

        def _save_checkpoint(self, *args: Any, **options: Any) -> None:
            step = self.state.global_step
            try:
                if self.is_world_process_zero():  # what is there is overwritten
                    (Path(self.args.output_dir) / f"checkpoint-{step}" / SEAL).unlink(True)
                super()._save_checkpoint(*args, **options)
            except Exception as error:  # torch and safetensors each have their own
                raise SaveFailed(
                    f"checkpoint-{step} could not be written ({error}): free some space"
                ) from error

    return Guarded


def _resuming(base: type[Any]) -> type[Any]:
    """transformers (5.17, `Trainer._inner_training_loop`) looks at `max_steps` after a step only,
    and lets whatever a checkpoint's files raise go up."""

    class Resuming(base):  # type: ignore[misc]
        _stepped = False

        def _run_epoch(self, *args: Any, **options: Any) -> None:
            if self.state.global_step >= self.state.max_steps:
                self.control.should_training_stop = True
                return
            self._stepped = True
            super()._run_epoch(*args, **options)

        def log(self, logs: dict[str, float], *args: Any, **options: Any) -> None:
            if self._stepped or "train_runtime" not in logs:  # there is no loss without a step
                super().log(logs, *args, **options)

        def _load_from_checkpoint(self, checkpoint: str, *args: Any, **options: Any) -> None:
            with _loading(checkpoint):
                super()._load_from_checkpoint(checkpoint, *args, **options)

        def _load_optimizer_and_scheduler(self, checkpoint: str) -> None:
            with _loading(checkpoint):
                super()._load_optimizer_and_scheduler(checkpoint)

        def _load_rng_state(self, checkpoint: str) -> None:
            with _loading(checkpoint):
                super()._load_rng_state(checkpoint)

    return Resuming


@contextlib.contextmanager
def _loading(checkpoint: str) -> Iterator[None]:
    """Raises CheckpointsDamaged for whatever torch, safetensors and transformers raise."""
    try:
        yield
    except Exception as error:
        fault = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise CheckpointsDamaged(
            f"{checkpoint} cannot be loaded ({fault}): with as many processes, the same model and "
            "versions it should; else move it away, and --resume goes on from the one before"
        ) from error


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
        """The folder is complete when every process has written its part: say so.

        Raises SaveFailed when the disk refuses.
        """
        del control
        PartialState().wait_for_everyone()
        if not state.is_world_process_zero:
            return
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        facts = {"step": state.global_step, "counters": dataclasses.asdict(self._counters)}
        try:
            seal(folder, facts)
        except OSError as error:
            raise SaveFailed(f"{folder.name} could not be sealed ({error})") from error


def last_sealed(output: Path) -> Path | None:
    """The newest checkpoint below `output` whose files have the sizes that its seal lists."""
    for folder in sealed(output):
        with contextlib.suppress(Damaged):
            _whole(folder, hashes=False)
            return folder
    return None


def last_whole(output: Path, *, every: int = 1, end: int = 0) -> Path | None:
    """The newest checkpoint below `output` that is as it was sealed, and at which a run can go on.

    That is each `every` steps, where a generation begins, and from step `end` on, where nothing is
    left to train. Newer ones that are damaged are set aside, and told. None where no checkpoint is
    sealed; raises CheckpointsDamaged where none can be used.
    """
    faults: dict[Path, str] = {}
    for folder in sealed(output):
        try:
            _whole(folder)
        except Damaged as error:
            faults[folder] = str(error)
            continue
        if _step(folder) % every == 0 or 0 < end <= _step(folder):
            _set_aside(faults)
            return folder
        print(f"{folder} ended within a generation: an earlier one is resumed from", flush=True)
    if not faults and not sealed(output):
        return None
    told = "; ".join(f"{folder.name}: {fault}" for folder, fault in faults.items())
    raise CheckpointsDamaged(
        f"{output} holds no checkpoint that can be resumed from ({told or 'none fits'}): restore "
        "one from a copy, or begin anew in another output"
    )


def _whole(folder: Path, *, hashes: bool = True) -> None:
    """Raises Damaged unless `folder` is as it was sealed."""
    found = verify(folder, hashes=hashes)
    if hashes and "files" not in found:
        look_through(folder)
    if found.get("step") != _step(folder):
        raise Damaged(f"{SEAL} is of step {found.get('step')!r}")
    counters = found.get("counters")
    names = {each.name for each in dataclasses.fields(Counters)}
    if not isinstance(counters, dict) or set(counters) - names:
        raise Damaged(f"{SEAL} has no counters of a run")
    if not all(type(value) is int for value in counters.values()):
        raise Damaged(f"{SEAL} has counters that are no whole numbers")


def _set_aside(faults: dict[Path, str]) -> None:
    """Rename damaged checkpoints, so that neither a rotation nor a later save counts them."""
    for folder, fault in faults.items():
        aside = folder.with_name(f"_damaged-{folder.name}")  # which no push uploads
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
        print(f"{folder} is damaged ({fault}): set aside as {aside.name}", flush=True)


def sealed(output: Path) -> list[Path]:
    """Checkpoints below `output` that carry a seal, whole or not, the newest first."""
    found = [folder for folder in _checkpoints(output) if (folder / SEAL).exists()]
    return sorted(found, key=_step, reverse=True)


def remove_unsealed(output: Path) -> list[Path]:
    """Delete what an interrupted save left; returns the folders."""
    broken = [folder for folder in _checkpoints(output) if not (folder / SEAL).exists()]
    for folder in broken:
        shutil.rmtree(folder)
    return broken


def restore(checkpoint: Path, counters: Counters) -> None:
    """Continue counting where `checkpoint` was."""
    for name, value in verify(checkpoint, hashes=False)["counters"].items():
        setattr(counters, name, value)


def _checkpoints(output: Path) -> list[Path]:
    return [each for each in output.glob("checkpoint-*") if each.name.rpartition("-")[2].isdigit()]


def _step(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])
