"""Files of calibrated thresholds: what they hold, and what is refused."""

import dataclasses
import io
import json
from types import SimpleNamespace
from typing import Any

import pytest

from stepgrpo_core import ExitSettings
from stepgrpo_core.errors import InvalidCalibration, InvalidSetting
from stepgrpo_core.fingerprint import fingerprint, is_model_file, text_fingerprint
from stepgrpo_core.risk import Thresholds, calibrated_settings, parse_thresholds
from stepgrpo_core.risk.thresholds import SETTINGS
from tests.support.core.thresholds import made_thresholds


@pytest.mark.parametrize("policy", SETTINGS)
def test_what_is_written_is_read_back(policy: str) -> None:
    made = made_thresholds(policy, entropy_probes=32, min_tokens=7)
    assert parse_thresholds(json.loads(json.dumps(made.as_dict()))) == made
    names = {each.name for each in dataclasses.fields(ExitSettings)}
    assert made.settings.keys() <= names
    assert (made.settings["policy"], made.settings["min_tokens"]) == (policy, 7)


def test_only_policies_with_a_threshold_can_be_calibrated() -> None:
    with pytest.raises(InvalidSetting, match=r"policy='confidence\+budget'.*can be calibrated"):
        calibrated_settings(ExitSettings(policy="confidence+budget"))


def damaged(**changes: object) -> dict[str, Any]:
    return made_thresholds().as_dict() | changes


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "it must have the keys risk, epsilon"),
        ({}, "it must have the keys"),
        (damaged(extra=1), "and no others"),
        (damaged(risk="death"), "risk='death': use lost or changed"),
        (damaged(epsilon=1), "epsilon=1: use a number between 0 and 1"),
        (damaged(delta=0.0), "delta=0.0: use a number"),
        (damaged(weights=""), "weights='': use the fingerprint"),
        (damaged(sampling={"temperature": 1}), "sampling must have the keys temperature, top_p"),
        (damaged(settings=None), "settings must hold names"),
        (damaged(settings={"policy": "confidence"}), "settings must have, of policy confidence"),
        (damaged(settings={"policy": "confident"}), "policy='confident'"),
        (damaged(settings={"threshold": "x"}), "settings: "),
        (damaged(settings={"policy": "pattern"}), "settings: "),
        (damaged(settings={1: 2}), "settings: "),
    ],
)
def test_a_damaged_file_is_refused_with_the_reason(data: object, message: str) -> None:
    with pytest.raises(InvalidCalibration) as caught:
        parse_thresholds(data)
    assert message in str(caught.value)


def test_sampling_is_alike_if_every_parameter_is() -> None:
    made: Thresholds = made_thresholds()
    assert made.same_sampling(SimpleNamespace(**made.sampling))
    assert not made.same_sampling(SimpleNamespace(**{**made.sampling, "top_k": 20}))
    assert made.promise == {"risk": "lost", "epsilon": 0.05, "delta": 0.1}


@pytest.mark.parametrize(
    ("name", "holds"),
    [
        ("model-00001-of-00002.safetensors", True),
        ("pytorch_model.bin", True),
        ("config.json", True),
        ("tokenizer.json", True),
        ("adapter_config.json", True),
        ("calibration.json", False),
        ("generation_config.json", False),
        ("training_args.bin", False),
        ("chat_template.jinja", False),
    ],
)
def test_a_fingerprint_is_of_weights_shape_and_tokenizer(name: str, holds: bool) -> None:
    assert is_model_file(name) is holds


def test_a_fingerprint_tells_names_lengths_and_sampled_contents_apart() -> None:
    def of(*files: tuple[str, bytes]) -> str:
        return fingerprint((name, io.BytesIO(content)) for name, content in files)

    large = bytes(2**20)
    assert of() == ""
    assert len({of(("a", b"x")), of(("b", b"x")), of(("a", b"y")), of(("a", b"xx"))}) == 4
    assert of(("a", large)) == of(("a", bytes(2**20))) != of(("a", b"1" + large[1:]))
    assert of(("a", large)) != of(("a", large[:-1] + b"1"))
    assert text_fingerprint("a") != text_fingerprint("b")
