"""The output folder of a run: where a run in it goes on, and what a finished one leaves.

A finished run is exported into a folder beside, looked through, and only then moved into place;
at its very end the output gets a seal of its own. A run that is resumed does what is left before
that seal, which may be nothing.
"""

import contextlib
import difflib
import hashlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from accelerate import PartialState
from safetensors import SafetensorError, safe_open

from training.config.schema import RunConfig, dump_config
from training.run.checkpoints import RunStopped, last_whole, remove_unsealed, saved_message, sealed
from training.run.lock import locked
from training.run.processes import on_main
from training.run.seals import SEAL, Damaged, seal, verify

__all__ = ["claimed", "export", "is_finished", "prepare_output", "seal_output"]

KEPT = ("README.md", "metrics.jsonl", "calibration.json")
"""Files of a finished run beside the exported ones, where it has them."""


@contextlib.contextmanager
def claimed(output: Path) -> Iterator[None]:
    """Hold the folder for this run; raises FolderInUse on the main process."""
    with locked(output) if PartialState().is_main_process else contextlib.nullcontext():
        PartialState().wait_for_everyone()
        yield


def is_finished(output: Path, config: RunConfig) -> bool:
    """Return whether a run of this configuration is finished and its files are intact."""
    return on_main(lambda: _is_finished(output, dump_config(config)))


def prepare_output(
    output: Path, config: RunConfig, *, resume: bool, every: int = 1, end: int = 0
) -> Path | None:
    """The checkpoint to go on from, if any; never writes over another run.

    For `every` and `end` see `last_whole`. Raises FileExistsError without `resume` in an output
    that holds a run, and CheckpointsDamaged with it where no checkpoint is whole.
    """
    return on_main(lambda: _prepare(output, config, resume, every, end))


def export(trainer: Any, output: Path) -> list[str]:
    """Write weights (or the adapter), configuration and tokenizer; every process calls this.

    Returns the names of the files. Raises RunStopped where no weights were written.
    """
    plugin = getattr(trainer.accelerator.state, "fsdp_plugin", None)
    if plugin is not None:
        # transformers (5.17, `Trainer.save_model`) writes nothing under another type.
        plugin.set_state_dict_type("FULL_STATE_DICT")
    partial = output / "export.partial"
    on_main(lambda: shutil.rmtree(partial, ignore_errors=True))
    try:
        trainer.save_model(str(partial), _internal_call=True)  # pushed when all is there
    except (OSError, SafetensorError) as error:
        raise RunStopped(
            f"the model could not be written ({error}); {saved_message(output)}"
        ) from error
    PartialState().wait_for_everyone()
    return on_main(lambda: _move(partial, output))


def seal_output(output: Path, config: RunConfig, exported: Sequence[str], step: int) -> None:
    """Mark the run as finished; main process only."""
    names = [*exported, *(name for name in KEPT if (output / name).exists())]
    facts = {"finished": step, "config": _digest(dump_config(config))}
    seal(output, facts, dict.fromkeys(names))


def _is_finished(output: Path, config: str) -> bool:
    if not (output / SEAL).exists():
        return False
    try:
        found = verify(output)
    except Damaged as error:
        print(f"{output}: {error}: the model is written again", flush=True)
        return False
    return bool(found.get("config") == _digest(config))


def _digest(config: str) -> str:
    return hashlib.sha256(config.encode()).hexdigest()


def _refuse_another(output: Path) -> None:
    reached = [folder.name for folder in sealed(output)]
    if (output / SEAL).exists():
        reached.append("its end")
    if reached:
        raise FileExistsError(
            f"{output} holds a run that reached {reached[0]}; pass --resume to go on with it, or "
            "another output"
        )


def _prepare(output: Path, config: RunConfig, resume: bool, every: int, end: int) -> Path | None:
    if not resume:
        _refuse_another(output)
    saved = last_whole(output, every=every, end=end) if resume else None
    if saved is None and (output / SEAL).exists():
        raise FileExistsError(
            f"{output} holds a finished run of other settings, or damaged since, and no checkpoint "
            "to go on from; use another output"
        )
    for broken in remove_unsealed(output):
        print(f"removed {broken}: its saving was interrupted", flush=True)
    (output / SEAL).unlink(missing_ok=True)  # from here on it is not finished
    _keep_config(output / "config.yaml", dump_config(config), resumed=saved is not None)
    if resume and not saved:
        print(f"{output} holds no checkpoint yet: training starts at its first step", flush=True)
    return saved


def _keep_config(path: Path, text: str, *, resumed: bool) -> None:
    """Write the configuration; a resumed run says what is no longer as it was."""
    if resumed and path.exists():
        before = path.read_text(encoding="utf-8").splitlines()
        for line in difflib.ndiff(before, text.splitlines()):
            if line.startswith(("- ", "+ ")):
                print(f"changed since the run began: {line}", flush=True)
    path.write_text(text, encoding="utf-8")


def _move(partial: Path, output: Path) -> list[str]:
    """Put the exported files into place; raises RunStopped where they hold no weights."""
    names = sorted(each.name for each in partial.iterdir()) if partial.is_dir() else []
    if not any(_holds_weights(partial / name) for name in names):
        raise RunStopped(
            f"{output} got no weights ({', '.join(names) or 'no file'} written): let accelerate "
            "gather them, fsdp_state_dict_type: FULL_STATE_DICT or zero3_save_16bit_model: true; "
            + saved_message(output)
        )
    for name in names:
        if (output / name).is_dir():
            shutil.rmtree(output / name)
        (partial / name).replace(output / name)
    partial.rmdir()
    return [name for name in names if (output / name).is_file()]


def _holds_weights(path: Path) -> bool:
    if path.suffix != ".safetensors":
        return False
    try:
        with safe_open(path, framework="pt") as file:
            return len(list(file.keys())) > 0
    except SafetensorError:
        return False
