"""Output folder of a run: where to resume, and the export of a finished run.

A finished run is exported to a temporary folder, checked, and only then moved into place. At the
end the output gets a seal of its own. A resumed run does what is left before that seal.
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
from training.run.checkpoints import RunStopped, last_intact, remove_unsealed, saved_message, sealed
from training.run.lock import locked
from training.run.processes import on_main
from training.run.seals import SEAL, DamagedFile, seal, verify

__all__ = ["export", "is_finished", "locked_output", "prepare_output", "seal_output"]

SEALED_FILES = ("README.md", "metrics.jsonl", "calibration.json")
"""Files of a finished run besides the exported ones, if they exist."""


@contextlib.contextmanager
def locked_output(output: Path) -> Iterator[None]:
    """Lock the folder for this run; raises FolderInUse on the main process."""
    with locked(output) if PartialState().is_main_process else contextlib.nullcontext():
        PartialState().wait_for_everyone()
        yield


def is_finished(output: Path, config: RunConfig) -> bool:
    """Return whether a run of this configuration is finished and its files are intact."""
    return on_main(lambda: _is_finished(output, dump_config(config)))


def prepare_output(
    output: Path, config: RunConfig, *, resume: bool, every: int = 1, end: int = 0
) -> Path | None:
    """Return the checkpoint to resume from, if any; never overwrites another run.

    For `every` and `end` see `last_intact`. Raises FileExistsError if `resume` is false and the
    output holds a run, and CheckpointsDamaged if it is true and no checkpoint is intact.
    """
    return on_main(lambda: _prepare(output, config, resume, every, end))


def export(trainer: Any, output: Path) -> list[str]:
    """Write weights (or the adapter), configuration and tokenizer; every process calls this.

    Returns the names of the files. Raises RunStopped if no weights were written.
    """
    plugin = getattr(trainer.accelerator.state, "fsdp_plugin", None)
    if plugin is not None:
        # transformers (5.17, `Trainer.save_model`) writes nothing for other types.
        plugin.set_state_dict_type("FULL_STATE_DICT")
    partial = output / "export.partial"
    on_main(lambda: shutil.rmtree(partial, ignore_errors=True))
    try:
        trainer.save_model(
            str(partial), _internal_call=True
        )  # pushed later, when the export is complete
    except (OSError, SafetensorError) as error:
        raise RunStopped(
            f"the model could not be written ({error}); {saved_message(output)}"
        ) from error
    PartialState().wait_for_everyone()
    return on_main(lambda: _move(partial, output))


def seal_output(output: Path, config: RunConfig, exported: Sequence[str], step: int) -> None:
    """Mark the run as finished; main process only."""
    names = [*exported, *(name for name in SEALED_FILES if (output / name).exists())]
    facts = {"finished": step, "config": _digest(dump_config(config))}
    seal(output, facts, dict.fromkeys(names))


def _is_finished(output: Path, config: str) -> bool:
    if not (output / SEAL).exists():
        return False
    try:
        found = verify(output)
    except DamagedFile as error:
        print(f"{output}: {error}: writing the model again", flush=True)
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
            f"{output} holds a run that reached {reached[0]}; pass --resume to continue it, or "
            "another output"
        )


def _prepare(output: Path, config: RunConfig, resume: bool, every: int, end: int) -> Path | None:
    if not resume:
        _refuse_another(output)
    saved = last_intact(output, every=every, end=end) if resume else None
    if saved is None and (output / SEAL).exists():
        raise FileExistsError(
            f"{output} holds a finished run with other settings, or a damaged one, and no "
            "checkpoint to resume from; use another output"
        )
    for broken in remove_unsealed(output):
        print(f"removed {broken}: its save was interrupted", flush=True)
    (output / SEAL).unlink(missing_ok=True)  # the run is unfinished from here on
    _keep_config(output / "config.yaml", dump_config(config), resumed=saved is not None)
    if resume and not saved:
        print(f"{output} holds no checkpoint yet: training starts at the first step", flush=True)
    return saved


def _keep_config(path: Path, text: str, *, resumed: bool) -> None:
    """Write the configuration; a resumed run prints the changed lines."""
    if resumed and path.exists():
        before = path.read_text(encoding="utf-8").splitlines()
        for line in difflib.ndiff(before, text.splitlines()):
            if line.startswith(("- ", "+ ")):
                print(f"changed since the run began: {line}", flush=True)
    path.write_text(text, encoding="utf-8")


def _move(partial: Path, output: Path) -> list[str]:
    """Move the exported files into place; raises RunStopped if they contain no weights."""
    names = sorted(each.name for each in partial.iterdir()) if partial.is_dir() else []
    if not any(_holds_weights(partial / name) for name in names):
        raise RunStopped(
            f"no weights were written to {output} ({', '.join(names) or 'no file'}): let "
            "accelerate gather them by fsdp_state_dict_type: FULL_STATE_DICT or "
            "zero3_save_16bit_model: true; " + saved_message(output)
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
