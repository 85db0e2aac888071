"""Fingerprints of a model's files, by which a server recognizes what was calibrated."""

import hashlib
import re
from collections.abc import Iterable
from typing import BinaryIO

__all__ = ["fingerprint", "is_model_file", "text_fingerprint"]

BLOCKS, BLOCK_BYTES = 64, 4096  # evenly spaced sample of a file: training changes most weights
DIGEST_BYTES = 8
_MODEL_FILE = re.compile(
    r".*\.(safetensors|gguf)|(pytorch|adapter)_model.*\.bin|(adapter_)?config\.json"
    r"|tokenizer\.(json|model)|vocab\.json|merges\.txt|added_tokens\.json"
)


def is_model_file(name: str) -> bool:
    """Return whether a file of this name holds weights, their shape, or the tokenizer.

    Chat templates, generation settings and results of runs are none of them.
    """
    return _MODEL_FILE.fullmatch(name) is not None


def fingerprint(files: Iterable[tuple[str, BinaryIO]]) -> str:
    """Return a short digest of files, given in order as names and open files; "" without any."""
    found, read = hashlib.blake2b(digest_size=DIGEST_BYTES), False
    for name, file in files:
        size = file.seek(0, 2)
        found.update(f"{name} {size}\n".encode())
        for block in _sample(file, size):
            found.update(block)
        read = True
    return found.hexdigest() if read else ""


def _sample(file: BinaryIO, size: int) -> Iterable[bytes]:
    whole = size <= BLOCKS * BLOCK_BYTES
    starts = (
        [0] if whole else [each * (size - BLOCK_BYTES) // (BLOCKS - 1) for each in range(BLOCKS)]
    )
    for start in starts:
        file.seek(start)
        yield file.read(size if whole else BLOCK_BYTES)


def text_fingerprint(text: str) -> str:
    """Return a short digest of a text."""
    return hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).hexdigest()
