"""The API keys a server knows: from its command line, and from a file that may change.

The file holds a key per line, after an optional ``name: `` that the log calls it by. Empty lines
and lines that begin with # are none. Keys are kept as SHA-256 digests, and every comparison takes
the same time. A file that was replaced, as Kubernetes does it for secrets, is read again; one that
cannot be read, or holds no key, changes nothing: a server whose keys vanish by mistake must neither
stand open nor lock everybody out.
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
    """A file that holds no keys; says which line is wrong, never what it says."""


def digest_of(key: str) -> bytes:
    """What is kept of a key."""
    return hashlib.sha256(key.encode()).digest()


def parse_keys(text: str) -> dict[bytes, str]:
    """The digests of a file's keys, with their names; raises BadKeys."""
    found: dict[bytes, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        named = _NAMED.fullmatch(stripped)
        name, key = named.groups() if named else (f"line {number}", stripped)
        if not _KEY.fullmatch(key or ""):
            raise BadKeys(
                f"line {number} holds no key: write one key, or name: key, without blanks in it"
            )
        found[digest_of(key)] = name
    if not found:
        raise BadKeys("it holds no key: write one per line")
    return found


class KeyRing:
    """Keys that do not change, and those of a file.

    Raises OSError or BadKeys where the file cannot be read at first.
    """

    def __init__(self, fixed: Iterable[str] = (), file: Path | None = None) -> None:
        self._fixed = frozenset(map(digest_of, fixed))
        self._file = file
        self._seen = _state_of(file) if file else None
        self._named = _read(file) if file else {}
        self._set()

    @property
    def required(self) -> bool:
        """Whether a key is needed at all."""
        return bool(self._digests)

    def contains(self, digest: bytes) -> bool:
        """Whether it is the digest of a key; takes as long for any."""
        found = False
        for each in self._digests:
            found |= hmac.compare_digest(each, digest)
        return found

    async def watch(self) -> None:
        """Follow the file, for ever."""
        while self._file is not None:
            await asyncio.sleep(POLL_SECONDS)
            await asyncio.to_thread(self.refresh, self._file)

    def reload(self) -> None:
        """Have the file read again, changed or not, when it is looked at next."""
        self._seen = ()

    def refresh(self, file: Path) -> None:
        """Read the file again if it has changed."""
        state = _state_of(file)
        if state == self._seen:
            return
        self._seen = state
        try:
            named = _read(file)
        except (OSError, BadKeys) as error:
            why = error.strerror if isinstance(error, OSError) else error
            _log.error("API keys: %s has changed, but %s. All keys stay as they are.", file, why)
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
    except UnicodeDecodeError:  # whose words quote the file
        raise BadKeys("it is not UTF-8 text") from None


def _state_of(file: Path) -> tuple[int, ...]:
    """Differs whenever the file was written, replaced, or let be read; follows links."""
    try:
        found = os.stat(file)  # noqa: PTH116 - one call for all
    except OSError as error:
        return (error.errno or 0,)
    return (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size)


def _difference(before: Mapping[bytes, str], after: Mapping[bytes, str]) -> str:
    new = sorted(after[each] for each in after.keys() - before.keys())
    gone = sorted(before[each] for each in before.keys() - after.keys())
    return f"{len(after)} keys; new: {', '.join(new) or '-'}; gone: {', '.join(gone) or '-'}"
