"""API keys of a server: from its command line, and from a file that is reloaded when it changes.

The file has one key per line, after an optional ``name: `` that is used in the log. Empty lines and
lines that begin with # are ignored. Keys are kept as SHA-256 digests and compared in constant time.
A file that is replaced, as Kubernetes replaces mounted secrets, is reloaded. A file that cannot be
read or holds no key leaves the keys as they are: a server whose keys vanish by mistake must neither
accept everybody nor lock everybody out.
"""

import asyncio
import hashlib
import hmac
import logging
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from prometheus_client import REGISTRY

from service.records.metric_table import counter, gauge

__all__ = ["POLL_SECONDS", "BadKeys", "KeyRing", "digest_of", "parse_keys"]

POLL_SECONDS = 1.0

_log = logging.getLogger("vllm.stepgrpo")
_known = gauge("api_keys", REGISTRY)
_reloads = counter("api_key_reloads_total", REGISTRY)
for _to in ("read", "kept"):
    _reloads.labels(_to)

_NAMED = re.compile(r"([\w.-]{1,64}):(?:\s+(.*))?")
_KEY = re.compile(r"[!-~]+")  # visible ASCII


class BadKeys(ValueError):
    """The key file is invalid. The message names the line and never quotes it."""


def digest_of(key: str) -> bytes:
    """Return the digest that a key is stored as."""
    return hashlib.sha256(key.encode()).digest()


def parse_keys(text: str) -> dict[bytes, str]:
    """Return the names of the keys in a key file, by digest. Raises BadKeys."""
    found: dict[bytes, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        named = _NAMED.fullmatch(stripped)
        name, key = named.groups() if named else (f"line {number}", stripped)
        if not _KEY.fullmatch(key or ""):
            raise BadKeys(
                f"line {number} holds no key: write KEY or NAME: KEY; a key has no spaces"
            )
        found[digest_of(key)] = name
    if not found:
        raise BadKeys("it holds no key: write one per line")
    return found


class KeyRing:
    """The fixed keys and the keys of a file. Raises OSError or BadKeys if the file is unusable."""

    def __init__(self, fixed: Iterable[str] = (), file: Path | None = None) -> None:
        self._fixed = frozenset(map(digest_of, fixed))
        self._file = file
        self._seen = _state_of(file) if file else None
        self._named = _read(file) if file else {}
        self._set()

    @property
    def required(self) -> bool:
        """True if requests need a key."""
        return bool(self._digests)

    def contains(self, digest: bytes) -> bool:
        """Return whether `digest` is the digest of a known key, in constant time."""
        found = False
        for each in self._digests:
            found |= hmac.compare_digest(each, digest)
        return found

    async def watch(self) -> None:
        """Poll the file for changes until the task is cancelled."""
        while self._file is not None:
            await asyncio.sleep(POLL_SECONDS)
            await asyncio.to_thread(self.refresh, self._file)

    def reload(self) -> None:
        """Reload the file at the next poll, even if it has not changed."""
        self._seen = ()

    def refresh(self, file: Path) -> None:
        """Reload the file if it has changed."""
        state = _state_of(file)
        if state == self._seen:
            return
        self._seen = state
        try:
            named = _read(file)
        except (OSError, BadKeys) as error:
            why = error.strerror if isinstance(error, OSError) else error
            _log.error("API keys: %s has changed, but %s. The keys stay as they are.", file, why)
            _reloads.labels("kept").inc()
            return
        _log.info("API keys: %s has changed: %s.", file, _difference(self._named, named))
        self._named = named
        self._set()
        _reloads.labels("read").inc()

    def _set(self) -> None:
        self._digests = tuple(self._fixed | self._named.keys())
        _known.set(len(self._digests))


def _read(file: Path) -> dict[bytes, str]:
    try:
        return parse_keys(file.read_text(encoding="utf-8"))
    except UnicodeDecodeError:  # the error's message would quote the file
        raise BadKeys("it is not UTF-8 text") from None


def _state_of(file: Path) -> tuple[int, ...]:
    """Return a value that changes whenever the file, its target or its permissions change."""
    try:
        found = os.stat(file)  # noqa: PTH116 - a single system call
    except OSError as error:
        return (error.errno or 0,)
    return (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size)


def _difference(before: Mapping[bytes, str], after: Mapping[bytes, str]) -> str:
    new = sorted(after[each] for each in after.keys() - before.keys())
    gone = sorted(before[each] for each in before.keys() - after.keys())
    return f"{len(after)} keys; new: {', '.join(new) or '-'}; gone: {', '.join(gone) or '-'}"
