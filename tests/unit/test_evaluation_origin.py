"""What names a model's files and the place of a measurement."""

from pathlib import Path

import pytest

from training.evaluation.origin import ENDS, origin, weights_of


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "README.md").write_text("about")
    (tmp_path / "model.safetensors").write_bytes(b"head" + bytes(3 * ENDS) + b"tail")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("config.json", b'{"a": 1}'),
        ("chat_template.jinja", b"x"),
        ("model.safetensors", b"HEAD" + bytes(3 * ENDS) + b"tail"),
        ("model.safetensors", b"head" + bytes(3 * ENDS) + b"TAIL"),
        ("model.safetensors", b"head" + bytes(3 * ENDS + 1) + b"tail"),
        ("model-2.safetensors", b""),
    ],
)
def test_another_model_in_the_same_folder_has_another_name(
    model: Path, name: str, data: bytes
) -> None:
    before = weights_of(str(model))
    assert before == weights_of(str(model))
    (model / name).write_bytes(data)
    assert weights_of(str(model)) != before


def test_what_the_completions_do_not_depend_on_changes_no_name(model: Path) -> None:
    before = weights_of(str(model))
    (model / "README.md").write_text("measured")
    (model / "calibration.json").write_text("{}")
    assert weights_of(str(model)) == before


def test_a_name_on_the_hub_has_no_files_to_name() -> None:
    assert weights_of("nobody/nothing") == ""


def test_the_origin_names_versions_and_hardware() -> None:
    found = origin()
    assert found["versions"]["vllm"]
    assert found["versions"]["torch"]
    assert found["hardware"]
