"""Seals: a small file with the size and hash of every other file in a folder.

The seal is written last, and everything is synced to the disk in that order: files, seal, folder.
So a folder with a seal was complete once, and `verify` checks whether it still is.
"""

import errno
import hashlib
import json
import os
import zipfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from training.files import replacing

__all__ = ["SEAL", "DamagedFile", "check_readable", "seal", "verify"]

SEAL = "stepgrpo.json"


class DamagedFile(ValueError):
    """A file of a sealed folder changed; the message names it and the fault."""


def seal(folder: Path, facts: Mapping[str, Any], names: Iterable[str] | None = None) -> None:
    """Seal the files `names` of `folder`, by default all; `facts` are stored in the seal."""
    found = [each for each in folder.rglob("*") if each.is_file() and each.name != SEAL]
    files = sorted(found if names is None else [folder / name for name in names])
    with ThreadPoolExecutor() as pool:  # hashing and syncing release the interpreter's lock
        entries = list(pool.map(_synced, files))
    listed = {
        each.relative_to(folder).as_posix(): entry
        for each, entry in zip(files, entries, strict=True)
    }
    with replacing(folder / SEAL) as partial, partial.open("w", encoding="utf-8") as file:
        file.write(json.dumps({**facts, "files": listed}, indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    for each in {*(path.parent for path in files), folder, folder.parent}:
        _sync_folder(each)


def verify(folder: Path, *, hashes: bool = True) -> dict[str, Any]:
    """Return the content of the seal of `folder`; raises DamagedFile if a file is missing or
    differs.

    Without `hashes` only sizes are compared. Seals of older versions do not list files; use
    `check_readable` for these.
    """
    found = _read(folder / SEAL)
    files: dict[str, Any] = found.get("files", {})
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda name: _compare(folder, name, files[name], hashes), files))
    return found


def check_readable(folder: Path) -> None:
    """Raise DamagedFile for a JSON, safetensors or torch file of `folder` that cannot be read."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        try:
            if path.suffix == ".json":
                json.loads(path.read_text(encoding="utf-8"))
            elif path.suffix == ".safetensors":
                with safe_open(path, framework="pt"):
                    pass
            elif path.suffix in (".pt", ".pth", ".bin"):
                with zipfile.ZipFile(path) as archive:
                    archive.testzip()
        except (OSError, ValueError, SafetensorError, zipfile.BadZipFile) as error:
            raise DamagedFile(f"{name} cannot be read: {error}") from error


def _synced(path: Path) -> dict[str, Any]:
    """Sync a file to the disk; return its size in bytes and its hash."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"bytes": os.fstat(file.fileno()).st_size, "sha256": digest}


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems sync no folders
            raise
    finally:
        os.close(descriptor)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DamagedFile(f"{path.name} is missing") from error
    except (OSError, ValueError) as error:
        raise DamagedFile(f"{path.name} cannot be read: {error}") from error
    if not isinstance(found, dict) or not isinstance(found.get("files", {}), dict):
        raise DamagedFile(f"{path.name} is not a seal")
    return found


def _compare(folder: Path, name: str, entry: Any, hashes: bool) -> None:
    path = folder / name
    try:
        size, wanted = path.stat().st_size, entry["bytes"]
        if not path.is_file():
            raise DamagedFile(f"{name} is not a file")
        if size != wanted:
            raise DamagedFile(f"{name} has {size} bytes instead of {wanted}")
        if hashes:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest != entry["sha256"]:
                raise DamagedFile(f"{name} has changed since the seal")
    except FileNotFoundError as error:
        raise DamagedFile(f"{name} is missing") from error
    except (OSError, KeyError, TypeError) as error:
        raise DamagedFile(f"{name} cannot be compared: {error!r}") from error
