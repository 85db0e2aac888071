"""Prompts of users to calibrate with: read strictly, and before anything slow is loaded."""

from pathlib import Path

import pytest

from training.data.prompts import BadPrompts, read_prompts


@pytest.mark.parametrize("line", ['{"prompt": 5}', "{", "[]", "{}", ""])
def test_a_bad_prompt_file_names_file_line_and_reason(tmp_path: Path, line: str) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "a"}\n' + line + "\n")
    with pytest.raises(BadPrompts, match=r"prompts\.jsonl:2: .*each line must be"):
        read_prompts(path)


def test_prompts_are_read_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "b"}\n{"prompt": "a", "answer": 1}\n')
    assert read_prompts(path) == ["b", "a"]
