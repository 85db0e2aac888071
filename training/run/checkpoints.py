"""Checkpoints of long runs: stop signals, sealed checkpoints, and errors that name the last one.

A checkpoint is valid once it has a *seal*, a small file that is written last. A run that is killed
or out of disk space during a save leaves an unsealed folder, which is never resumed from and is
removed at the next start. A sealed checkpoint that is damaged is renamed, and the run resumes from
the newest intact one before it.
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
from training.rollouts.types import RolloutFailed
from training.run.seals import SEAL, DamagedFile, check_readable, seal, verify

__all__ = [
    "CheckpointsDamaged",
    "NotFinite",
    "RunStopped",
    "SaveFailed",
    "SealCheckpoints",
    "StopOnSignal",
    "checked_trainer",
    "last_intact",
    "last_sealed",
    "remove_unsealed",
    "restore_counters",
    "saved_message",
    "sealed",
    "train_to_end",
]

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class RunStopped(RuntimeError):
    """A run ended before its last step; the message says why and how to continue."""


class NotFinite(ArithmeticError):
    """The loss is NaN or infinite; the weights were not updated."""


class SaveFailed(RuntimeError):
    """A checkpoint could not be written; it has no seal."""


class CheckpointsDamaged(RuntimeError):
    """No sealed checkpoint is intact; the message names each with its fault."""


def checked_trainer(base: type[Any]) -> type[Any]:
    """Return a subclass of the trainer `base` with checks.

    It raises NotFinite for a loss that is not finite, before the weights change; SaveFailed for a
    failed save; and CheckpointsDamaged for a checkpoint that cannot be loaded. A run that is
    resumed at its last step makes no further step.
    """

    class CheckedTrainer(_resuming(base)):  # type: ignore[misc]
        def compute_loss(self, *args: Any, **options: Any) -> torch.Tensor:
            loss: torch.Tensor = super().compute_loss(*args, **options)
            if not torch.isfinite(loss):
                raise NotFinite(f"the loss of step {self.state.global_step + 1} is {loss.item()}")
            return loss

        def _save_checkpoint(self, *args: Any, **options: Any) -> None:
            step = self.state.global_step
            try:
                if self.is_world_process_zero():  # an older seal is no longer valid
                    (Path(self.args.output_dir) / f"checkpoint-{step}" / SEAL).unlink(True)
                super()._save_checkpoint(*args, **options)
            except Exception as error:  # torch and safetensors raise their own types
                raise SaveFailed(
                    f"checkpoint-{step} could not be written ({error}): free some space"
                ) from error

    return CheckedTrainer


def _resuming(base: type[Any]) -> type[Any]:
    """Return a subclass of `base` that resumes safely.

    transformers (5.17, `Trainer._inner_training_loop`) checks `max_steps` only after a step, and
    does not catch errors from damaged checkpoint files.
    """

    class Resuming(base):  # type: ignore[misc]
        _stepped = False

        def _run_epoch(self, *args: Any, **options: Any) -> None:
            if self.state.global_step >= self.state.max_steps:
                self.control.should_training_stop = True
                return
            self._stepped = True
            super()._run_epoch(*args, **options)

        def log(self, logs: dict[str, float], *args: Any, **options: Any) -> None:
            if self._stepped or "train_runtime" not in logs:  # without a step there is no loss
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
    """Convert any error of torch, safetensors and transformers to CheckpointsDamaged."""
    try:
        yield
    except Exception as error:
        fault = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise CheckpointsDamaged(
            f"{checkpoint} cannot be loaded ({fault}): use the same number of processes, model and "
            "versions, or move it away, and --resume continues from the one before"
        ) from error


def saved_message(output: Path) -> str:
    """Return a message about the last checkpoint and how to continue."""
    last = last_sealed(output)
    if last is None:
        return "no checkpoint had been saved"
    return f"the last good checkpoint is {last}; continue with --resume"


class StopOnSignal(TrainerCallback):  # type: ignore[misc]
    """On SIGTERM or SIGINT, finish the step, save and stop; a second signal ends at once.

    Runs stop only where a new generation begins, because checkpoints do not contain completions
    that wait for their update.
    """

    def __init__(self, steps_per_generation: int) -> None:
        self._steps = steps_per_generation
        self.signal: signal.Signals | None = None

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the signals while active; main thread only."""
        before = {each: signal.signal(each, self._handle) for each in STOP_SIGNALS}
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
        print(
            f"\n{self.signal.name}: saving after this step; a second signal ends at once",
            flush=True,
        )

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Save and stop if any rank got a signal; all ranks decide the same."""
        del args
        asked = any(gather_object([self.signal is not None]))
        if asked and state.global_step % self._steps == 0:
            control.should_save = control.should_training_stop = True


def train_to_end(
    trainer: Any, checkpoint: Path | None, stop: StopOnSignal, *, setting: str
) -> None:
    """Train to the last step, from `checkpoint` if there is one.

    Raises RunStopped on a signal, if a rollout or a save fails, and if the loss is not finite: then
    the message names the `setting` of the learning rate.
    """
    output = Path(trainer.args.output_dir)
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except NotFinite as error:
        remedy = f"lower {setting}, or look at curves.png"
        raise RunStopped(f"{error}: {remedy}; {saved_message(output)}") from error
    except (RolloutFailed, SaveFailed, OSError) as error:
        raise RunStopped(f"{error}; {saved_message(output)}") from error
    if stop.signal is not None:
        raise RunStopped(f"{stop.signal.name}: {saved_message(output)}")


class SealCheckpoints(TrainerCallback):  # type: ignore[misc]
    """Seals every checkpoint once it is complete, with our counters in the seal."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Seal the folder once every process has written its part; raises SaveFailed."""
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
    """Return the newest checkpoint in `output` whose files have the sizes in its seal."""
    for folder in sealed(output):
        with contextlib.suppress(DamagedFile):
            _check_intact(folder, hashes=False)
            return folder
    return None


def last_intact(output: Path, *, every: int = 1, end: int = 0) -> Path | None:
    """Return the newest intact checkpoint in `output` from which a run can resume.

    A run can resume at multiples of `every` steps, where a generation begins, and from step `end`
    on, where no training is left. Newer damaged checkpoints are renamed and reported. Returns None
    if no checkpoint is sealed; raises CheckpointsDamaged if none can be used.
    """
    faults: dict[Path, str] = {}
    for folder in sealed(output):
        try:
            _check_intact(folder)
        except DamagedFile as error:
            faults[folder] = str(error)
            continue
        if _step(folder) % every == 0 or 0 < end <= _step(folder):
            _rename_damaged(faults)
            return folder
        print(f"{folder} ended within a generation: resuming from an earlier one", flush=True)
    if not faults and not sealed(output):
        return None
    listed = "; ".join(f"{folder.name}: {fault}" for folder, fault in faults.items())
    raise CheckpointsDamaged(
        f"{output} holds no checkpoint that can be resumed from ({listed or 'none fits'}): restore "
        "one from a copy, or start again in another output"
    )


def _check_intact(folder: Path, *, hashes: bool = True) -> None:
    """Raise DamagedFile unless the checkpoint `folder` is intact."""
    found = verify(folder, hashes=hashes)
    if hashes and "files" not in found:
        check_readable(folder)
    if found.get("step") != _step(folder):
        raise DamagedFile(f"{SEAL} is of step {found.get('step')!r}")
    counters = found.get("counters")
    names = {each.name for each in dataclasses.fields(Counters)}
    if not isinstance(counters, dict) or set(counters) - names:
        raise DamagedFile(f"{SEAL} has no counters of a run")
    if not all(type(value) is int for value in counters.values()):
        raise DamagedFile(f"{SEAL} has counters that are not integers")


def _rename_damaged(faults: dict[Path, str]) -> None:
    """Rename damaged checkpoints, so that rotation and later saves ignore them."""
    for folder, fault in faults.items():
        aside = folder.with_name(f"_damaged-{folder.name}")  # a push does not upload names with _
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
        print(f"{folder} is damaged ({fault}): renamed to {aside.name}", flush=True)


def sealed(output: Path) -> list[Path]:
    """Return the checkpoints in `output` that have a seal, intact or not, newest first."""
    found = [folder for folder in _checkpoints(output) if (folder / SEAL).exists()]
    return sorted(found, key=_step, reverse=True)


def remove_unsealed(output: Path) -> list[Path]:
    """Delete checkpoints without a seal, left by interrupted saves; return their folders."""
    broken = [folder for folder in _checkpoints(output) if not (folder / SEAL).exists()]
    for folder in broken:
        shutil.rmtree(folder)
    return broken


def restore_counters(checkpoint: Path, counters: Counters) -> None:
    """Set `counters` to the values in the seal of `checkpoint`."""
    for name, value in verify(checkpoint, hashes=False)["counters"].items():
        setattr(counters, name, value)


def _checkpoints(output: Path) -> list[Path]:
    return [each for each in output.glob("checkpoint-*") if each.name.rpartition("-")[2].isdigit()]


def _step(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])
