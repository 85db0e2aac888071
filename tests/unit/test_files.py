"""Files are replaced in full or not at all."""

from pathlib import Path

import pytest

from training.files import replacing, write_text


def test_text_replaces_a_file_and_leaves_no_partial_one(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    for text in ("first", "2 \u2265 1"):
        write_text(path, text)
        assert path.read_text(encoding="utf-8") == text
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "curves.png"
    path.write_bytes(b"old")
    with pytest.raises(FileNotFoundError), replacing(path) as partial:
        partial.with_name("gone").read_bytes()
    assert path.read_bytes() == b"old"
