"""Facts of a stratum: settings, the engine, and digests of weights."""

import dataclasses
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from vllm.engine.arg_utils import EngineArgs

from service.params.effort import EFFORT
from service.params.limits import ProbeLimits
from service.savings.facts import engine_facts, settings_facts, weights_digest
from service.savings.measurement import open_measurement
from service.savings.plan import Plan
from stepgrpo_core import ExitSettings
from tests.support.service.strata import PLAN

MODEL = Path(__file__).parents[2] / "models" / "demo-base"


def test_facts_reveal_no_addresses() -> None:
    plan = Plan(pairs=0.1, pairs_url="http://replica.internal:8000/v1")
    settings = ExitSettings(verifier_url="http://judge.internal:8000/v1")
    text = json.dumps(settings_facts(plan, settings, ProbeLimits(), EFFORT))
    assert "internal" not in text
    other = dataclasses.replace(plan, pairs_url="http://other.internal:8000/v1")
    assert json.dumps(settings_facts(other, settings, ProbeLimits(), EFFORT)) != text


def test_engine_facts_are_json_and_differ_between_engines() -> None:
    def facts(**options: Any) -> str:
        model = EngineArgs(model=str(MODEL), **options).create_model_config()
        return json.dumps(engine_facts(SimpleNamespace(model_config=model), None))

    assert facts() == facts()
    for options in (
        {"max_model_len": 1024},
        {"dtype": "float32"},
        {"override_generation_config": {"temperature": 0.1}},
    ):
        assert facts(**options) != facts()


def test_weights_are_identified_by_their_contents(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(os.urandom(3_000_000))
    (model / "README.md").write_text("a model")
    first = weights_digest(model)
    shutil.copytree(model, tmp_path / "copy")
    (tmp_path / "copy" / "README.md").write_text("a copy")
    assert weights_digest(tmp_path / "copy") == first
    (model / "model.safetensors").write_bytes(os.urandom(3_000_000))
    assert weights_digest(model) != first
    (tmp_path / "copy" / "config.json").write_text('{"rope_theta": 1}')
    assert weights_digest(tmp_path / "copy") != first
    assert weights_digest(Path("some/name-on-a-hub")) == ""
    assert weights_digest(model / "config.json") != ""


def test_a_calibration_of_its_own_is_a_fact(tmp_path: Path) -> None:
    (tmp_path / "calibration.json").write_text("{}")
    savings = open_measurement(PLAN, {None: tmp_path}, tmp_path / "calibration.json")
    assert savings is not None
    assert savings.facts["calibration"] == weights_digest(tmp_path / "calibration.json")
    savings.close()
