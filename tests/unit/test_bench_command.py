"""`stepgrpo-serve bench` starts vLLM's serving benchmark, with either vLLM wheel."""

import sys

import pytest

from service.cli import main


def test_it_has_the_flags_of_vllms_benchmark(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["stepgrpo-serve", "bench", "--help"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "stepgrpo-serve bench" in said
    for flag in ("--base-url", "--dataset-name", "--num-prompts", "--request-rate"):
        assert flag in said
