"""`calibrate` and the other commands refuse what they could only fail on later."""

import json
import re
import shutil
from pathlib import Path

import huggingface_hub
import pytest

from tests.support.training.refusals import refusal
from training.config.schema import InvalidConfig, load_config
from training.run.loading import load_tokenizer, model_of
from training.run.models import check_context, check_model

MODEL = Path(__file__).parents[2] / "models" / "demo-base"


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is asked of the hub, which would be tried several times."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--demo", "0"), "--demo=0 is invalid: use 1 or more"),
        (("--demo", "-3"), "--demo=-3"),
        (("--demo", "50", "--samples", "0"), "--samples=0 is invalid: use 1 or more"),
        (("--demo", "50", "--max-tokens", "0"), "--max-tokens=0"),
        (("--demo", "50", "--temperature", "-1"), "--temperature=-1.0"),
        (("--demo", "50", "--temperature", "nan"), "--temperature=nan"),
        (("--demo", "50", "--top-p", "0"), "--top-p=0.0"),
        (("--demo", "50", "--top-p", "1.5"), "--top-p=1.5"),
        (("--demo", "9", "--samples", "3", "--temperature", "0"), "--samples=3"),
        (("--demo", "19"), "--demo=19 .* these are 19 completions; a calibration needs 20"),
        (("--demo", "50", "--max-tokens", "3000"), "the model has 2048 positions"),
        (("--demo", "50", "--prompts", "x"), "exactly one of --prompts and --demo"),
        ((), "exactly one of --prompts and --demo"),
    ],
)
def test_a_calibration_that_could_not_end_does_not_begin(
    words: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = ("calibrate", "--model", str(MODEL), "--output", str(tmp_path / "out.json"))
    said = refusal(monkeypatch, *common, *words)
    assert "\n" not in said
    assert re.search(message, said)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; each line must be"),
        (b'{"prompt": "one"}\n', "these are 1 completions; a calibration needs 20 or more"),
        (b'{"text": "one"}\n', "prompts.jsonl:1: KeyError"),
        (b"\xff\xfe\n", "write it in UTF-8"),
    ],
)
def test_a_prompt_file_with_too_little_is_named(
    content: bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_bytes(content)
    common = ("calibrate", "--model", str(MODEL), "--output", str(tmp_path / "out.json"))
    said = refusal(monkeypatch, *common, "--prompts", str(prompts))
    assert message in said
    assert str(prompts) in said


def test_an_output_that_cannot_be_written_is_noticed_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    for output in (tmp_path, tmp_path / "file" / "out.json"):
        words = ("calibrate", "--model", str(MODEL), "--demo", "50", "--output", str(output))
        assert f"--output='{output}' is invalid" in refusal(monkeypatch, *words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("demo", "base", "--steps", "0"), "--steps=0"),
        (("demo", "base", "--problems", "0"), "--problems=0"),
        (("demo", "results", "--slots", "0"), "--slots=0"),
        (("demo", "results", "--problems", "-1"), "--problems=-1"),
        (("demo", "results", "--learning-rate", "0"), "--learning-rate=0.0"),
        (("demo", "results", "--base", "no/model"), "--base='no/model'"),
    ],
)
def test_the_demo_commands_look_before_they_run(
    words: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = refusal(monkeypatch, *words, "--output", str(tmp_path / "out"))
    assert message in said
    assert not (tmp_path / "out").exists()


def test_an_evaluation_looks_for_every_model_before_the_first_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    words = ("eval", "--baseline", str(MODEL), "--tasks", "demo", "--limit", "2")
    said = refusal(monkeypatch, *words, "--model", "no-such/model", "--output", str(output))
    assert said.startswith("model='no-such/model' is invalid: it is neither a directory")
    assert not output.exists()


def test_a_model_that_is_not_there_is_named_by_our_key_with_a_remedy(tmp_path: Path) -> None:
    config = load_config(["demo"], ["model.name=no-such/model"])
    with pytest.raises(ValueError, match=r"^model.name='no-such/model' .* HF_TOKEN.*$"):
        model_of(config, None)
    with pytest.raises(ValueError, match=r"^model.name='no-such/model' .* HF_TOKEN.*$"):
        load_tokenizer(config)
    with pytest.raises(ValueError, match=r"neither config.json nor adapter_config.json"):
        check_model(str(tmp_path))
    shutil.copy(MODEL / "config.json", tmp_path)
    (tmp_path / "training_args.bin").write_bytes(b"no weights")
    with pytest.raises(ValueError, match="holds no weights"):
        check_model(str(tmp_path))
    shutil.copy(MODEL / "model.safetensors", tmp_path)
    check_model(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="cannot be read as a model"):
        check_model(str(tmp_path))


def test_an_adapter_is_no_model_to_train_and_is_as_good_as_its_base(tmp_path: Path) -> None:
    (tmp_path / "adapter_model.safetensors").write_bytes(b"weights")
    config = tmp_path / "adapter_config.json"
    config.write_text(json.dumps({"base_model_name_or_path": str(MODEL)}))
    with pytest.raises(ValueError, match="it is an adapter of"):
        check_model(str(tmp_path))
    assert check_model(str(tmp_path), adapters=True).vocab_size == 390
    config.write_text(json.dumps({"base_model_name_or_path": "no-such/base"}))
    with pytest.raises(ValueError, match="no-such/base"):
        check_model(str(tmp_path), adapters=True)


def test_a_model_with_too_few_positions_is_refused_unless_they_are_scaled() -> None:
    found = check_model(str(MODEL))
    check_context(found, 2048, "key")
    with pytest.raises(ValueError, match="key=2049 is invalid: the model has 2048"):
        check_context(found, 2049, "key")
    found.rope_parameters = {"rope_type": "yarn", "factor": 4.0}
    check_context(found, 2049, "key")


def test_a_run_with_too_few_completions_for_its_calibration_is_refused() -> None:
    with pytest.raises(InvalidConfig, match=r"calibration_prompts=19 .* use 0 .* or 20 or more"):
        load_config(["demo"], ["calibration_prompts=19"])
    assert load_config(["demo"], ["calibration_prompts=0"]).calibration_prompts == 0
