"""Seals: a small file that lists the size and the hash of every other file of a folder.

It is written last, and everything is synced to the disk in that order: the files, the seal, the
folder. So a folder that carries a seal was whole once, and `verify` says whether it still is.
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

__all__ = ["SEAL", "Damaged", "look_through", "seal", "verify"]

SEAL = "stepgrpo.json"


class Damaged(ValueError):
    """A sealed folder is not as it was; the message names the file and its fault."""


def seal(folder: Path, facts: Mapping[str, Any], names: Iterable[str] | None = None) -> None:
    """Seal the files `names` of `folder`, all of them by default; the seal holds `facts`, too."""
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
    """What the seal of `folder` says. Raises Damaged where a file is missing or differs.

    Without `hashes` only sizes are compared. A seal of an older version lists no files, which
    cannot be compared: see `look_through`.
    """
    found = _read(folder / SEAL)
    files: dict[str, Any] = found.get("files", {})
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda name: _compare(folder, name, files[name], hashes), files))
    return found


def look_through(folder: Path) -> None:
    """Raises Damaged for a file of `folder` that is cut short or of no known form, as far as the
    forms themselves tell."""
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
            raise Damaged(f"{name} cannot be read: {error}") from error


def _synced(path: Path) -> dict[str, Any]:
    """Size in bytes and hash of a file that is on the disk now."""
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
        raise Damaged(f"{path.name} is missing") from error
    except (OSError, ValueError) as error:
        raise Damaged(f"{path.name} cannot be read: {error}") from error
    if not isinstance(found, dict) or not isinstance(found.get("files", {}), dict):
        raise Damaged(f"{path.name} is no seal")
    return found


def _compare(folder: Path, name: str, entry: Any, hashes: bool) -> None:
    path = folder / name
    try:
        size, wanted = path.stat().st_size, entry["bytes"]
        if not path.is_file():
            raise Damaged(f"{name} is no file")
        if size != wanted:
            raise Damaged(f"{name} has {size} bytes instead of {wanted}")
        if hashes:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest != entry["sha256"]:
                raise Damaged(f"{name} has other bytes than were saved")
    except FileNotFoundError as error:
        raise Damaged(f"{name} is missing") from error
    except (OSError, KeyError, TypeError) as error:
        raise Damaged(f"{name} cannot be compared: {error!r}") from error
