"""What set-up says about machines that will not do, and that an old Python can parse it."""

import ast
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from scripts import setup

SOURCE = Path(setup.__file__).read_text(encoding="utf-8")


def test_an_old_python_can_parse_it() -> None:
    ast.parse(SOURCE, feature_version=(3, 5))
    assert 'f"' not in SOURCE


def test_the_cpu_is_the_default_without_a_gpu_and_can_be_overridden(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert setup.choose_accelerator("") == "cpu"
    assert setup.choose_accelerator("cuda") == "cuda"
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA H100'\n")
    smi.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda _: str(smi))
    assert setup.choose_accelerator("") == "cuda"
    assert setup.choose_accelerator("cpu") == "cpu"
    smi.write_text("#!/bin/sh\nexit 9\n")  # a driver without a GPU
    assert setup.choose_accelerator("") == "cpu"


def sentence(caught: pytest.ExceptionInfo[SystemExit]) -> str:
    text = str(caught.value.code)
    assert text.startswith("stepgrpo set-up: ")
    assert text.count("\n") == 0
    return text


def test_another_python_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 1))
    with pytest.raises(SystemExit) as caught:
        setup.check_machine("cpu")
    assert "Python 3.11 is needed" in sentence(caught)
    assert "PYTHON=python3.11" in sentence(caught)


def test_another_architecture_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup.platform, "machine", lambda: "aarch64")
    with pytest.raises(SystemExit) as caught:
        setup.check_machine("cpu")
    assert "x86_64 is needed" in sentence(caught)
    assert "aarch64" in sentence(caught)


@pytest.mark.parametrize("accelerator", ["cpu", "cuda"])
def test_a_full_disk_says_how_much_is_needed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, accelerator: str
) -> None:
    monkeypatch.setattr(setup, "VENV", tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**30))
    with pytest.raises(SystemExit) as caught:
        setup.check_machine(accelerator)
    assert f"{setup.NEEDED_GIB[accelerator]} GiB of free disk" in sentence(caught)
    assert "1.0 GiB" in sentence(caught)


def test_what_is_installed_already_needs_no_further_disk(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with (tmp_path / "weights").open("wb") as file:
        file.truncate(3 * 2**30)
    monkeypatch.setattr(setup, "VENV", tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**30))
    setup.check_machine("cpu")
    with pytest.raises(SystemExit) as caught:
        setup.check_machine("cuda")
    assert "4.0 GiB" in sentence(caught)


def test_without_a_cpu_build_of_torch_it_says_which_index_to_pass(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tried: list[list[str]] = []
    monkeypatch.setattr(setup, "VENV", tmp_path)
    monkeypatch.setattr(setup, "pip", lambda arguments, *_, **__: tried.append(arguments))
    monkeypatch.delenv("TORCH_INDEX", raising=False)
    with pytest.raises(SystemExit) as caught:
        setup.install_cpu_torch(setup.ROOT / "locks" / "cpu.txt")
    assert "make TORCH_INDEX=https://" in sentence(caught)
    assert "torch==2.13.0+cpu" in sentence(caught)
    assert len(tried) == 2  # the default index, then PyTorch's own
    assert "--index-url" not in tried[0]
    assert "--index-url" in tried[1]
    pinned = (tmp_path / "torch.txt").read_text()
    assert pinned.startswith("torch==")
    assert "--hash=sha256:" in pinned


def test_an_index_that_was_passed_is_the_only_one_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tried: list[list[str]] = []
    monkeypatch.setattr(setup, "VENV", tmp_path)

    def pip(arguments: list[str], *_: object, **__: object) -> bool:
        tried.append(arguments)
        return True

    monkeypatch.setattr(setup, "pip", pip)
    monkeypatch.setenv("TORCH_INDEX", "https://example.org/simple")
    monkeypatch.setattr(setup, "TORCH_INDEX", "https://example.org/simple")
    setup.install_cpu_torch(setup.ROOT / "locks" / "cpu.txt")
    assert [each[:2] for each in tried] == [["--index-url", "https://example.org/simple"]]
