"""`--exit-thresholds`: options, the calibrated model, and the requests that are covered."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml
from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams

from service.config.layers import BadOption
from service.config.server import Defaults
from service.engine.policy_resolver import Calibrated, PolicyResolver
from service.engine.request import EngineRequest, ServedModel
from service.params import EFFORT, Effective, ThinkingRequest
from service.params.limits import ProbeLimits
from service.process.calibrated import calibrated_model
from service.records.reasons import Abstained
from stepgrpo_core import ThinkingFormat
from stepgrpo_core.families.thinking import TokenizerFormat
from stepgrpo_core.risk import Thresholds
from tests.support.core.thresholds import made_thresholds
from tests.support.service.defaults import read

PROMISE = {"risk": "lost", "epsilon": 0.05, "delta": 0.1}


def written(at: Path, made: Thresholds) -> tuple[str, str]:
    file = at / "thresholds.yaml"
    file.write_text(yaml.safe_dump(made.as_dict()))
    return "--exit-thresholds", str(file)


def test_the_file_sets_the_calibrated_options(tmp_path: Path) -> None:
    made = made_thresholds(threshold=0.7, min_tokens=5)
    found = read(*written(tmp_path, made), "--exit-threshold", "0.7", at=tmp_path)
    assert found.calibrated == made
    settings = found.settings
    assert (settings.policy, settings.threshold, settings.min_tokens) == ("confidence", 0.7, 5)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--exit-policy", "confidence+budget"], "--exit-policy='confidence+budget'"),
        (["--exit-threshold", "0.5"], "--exit-threshold=0.5"),
        (["--exit-markers", "deer"], "was calibrated with ("),
        (["--exit-min-tokens", "9"], "was calibrated with 0; leave it out, or run"),
        (["--exit-limit-probes", "5"], "would change what was calibrated"),
    ],
)
def test_options_that_were_not_calibrated_are_refused(
    tmp_path: Path, flags: list[str], message: str
) -> None:
    with pytest.raises(BadOption) as caught:
        read(*written(tmp_path, made_thresholds()), *flags, at=tmp_path)
    assert message in str(caught.value)


@pytest.mark.parametrize("content", ["policy: confidence\nthreshold: 0.9\n", "{", "\xff"])
def test_other_files_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "x").write_text(content, encoding="latin-1")
    with pytest.raises(BadOption, match="use a file of stepgrpo-train calibrate-exit"):
        read("--exit-thresholds", str(tmp_path / "x"), at=tmp_path)
    with pytest.raises(BadOption, match="No such file"):
        read("--exit-thresholds", str(tmp_path / "none"), at=tmp_path)


def folder(at: Path, name: str, config: str) -> str:
    (at / name).mkdir()
    (at / name / config).write_text(name)
    (at / name / "README.md").write_text("no part of the model")
    return str(at / name)


def test_the_model_is_recognized_by_its_files(tmp_path: Path) -> None:
    models = {
        None: folder(tmp_path, "base", "config.json"),
        "a": folder(tmp_path, "a", "adapter_config.json"),
    }

    def found(weights: str, template: str | None = None) -> Calibrated | None:
        made = dataclasses.replace(made_thresholds(), weights=weights)
        defaults = Defaults(thresholds=tmp_path / "t.yaml", calibrated=made)
        return calibrated_model(defaults, models, None, template)

    with pytest.raises(BadOption, match="calibrated for made with the fingerprint aa") as caught:
        found("aa")
    base, adapter = str(caught.value).partition("this server has ")[2].partition(";")[0].split(", ")
    for weights, name in ((base, None), (adapter, "a")):
        made = found(weights)
        assert made is not None
        assert made.adapter == name
    with pytest.raises(BadOption, match="another chat template"):
        found(base, "{{ messages }}")
    (tmp_path / "base" / "README.md").write_text("other")
    assert found(base)
    (tmp_path / "base" / "config.json").write_text("other")
    with pytest.raises(BadOption, match="run stepgrpo-train calibrate-exit again for the model"):
        found(base)
    assert calibrated_model(Defaults(), models, None, None) is None


def effective(
    params: dict[str, Any], adapter: str | None = None, asked: ThinkingRequest | None = None
) -> Effective:
    nothing: Any = None
    made = made_thresholds(threshold=0.7)
    thinking = ThinkingFormat(start_id=1, end_id=2, closing_ids=(2,))
    writing = TokenizerFormat(thinking, nothing, nothing, nothing)
    resolver = PolicyResolver(
        ServedModel(nothing, nothing, writing, nothing),
        dataclasses.replace(Defaults().settings, **made.settings),
        ProbeLimits(),
        EFFORT,
        max_model_len=1000,
        prefix_caching=True,
        grammars_wait=True,
        is_off=lambda *_: False,
        calibrated=Calibrated(made, adapter),
    )
    sampling = SamplingParams(**params, output_kind=RequestOutputKind.DELTA)
    request = EngineRequest("r", {"prompt_token_ids": [1]}, sampling, {})
    return resolver.effective(request, asked or ThinkingRequest(), tools=False)


def test_the_promise_is_in_the_block_of_what_it_covers() -> None:
    found = effective({"temperature": 0.6, "seed": 3, "max_tokens": 50})
    assert (found.settings.policy, found.abstained) == ("confidence", None)
    assert found.as_block() == {"threshold": 0.7, "guarantee": PROMISE}


@pytest.mark.parametrize(
    "params",
    [
        {"temperature": 0.7},
        {"temperature": 0.6, "top_p": 0.9},
        {"temperature": 0.6, "presence_penalty": 0.5},
        {"temperature": 0.6, "logit_bias": {3: 1.0}},
        {"temperature": 0.6, "structured_outputs": StructuredOutputsParams(regex="a")},
    ],
)
def test_other_sampling_is_served_without_exits(params: dict[str, Any]) -> None:
    found = effective(params)
    assert (found.settings.policy, found.abstained) == ("none", Abstained.UNCALIBRATED)
    found = effective(params | {"extra_args": {"exit_budget_tokens": 30}})
    assert (found.settings.policy, found.abstained) == ("budget", Abstained.UNCALIBRATED)


def test_another_model_is_served_without_exits() -> None:
    found = effective({"temperature": 0.6}, adapter="a")
    assert (found.settings.policy, found.abstained) == ("none", Abstained.UNCALIBRATED)


@pytest.mark.parametrize("xargs", [{"exit_policy": "margin"}, {"exit_threshold": 0.5}])
def test_a_request_may_still_choose_and_then_gets_no_promise(xargs: dict[str, Any]) -> None:
    for temperature in (0.6, 1.0):
        found = effective({"temperature": temperature, "extra_args": xargs})
        assert found.abstained is None
        assert "guarantee" not in found.as_block()
    bounded = effective({"temperature": 0.6, "extra_args": {"exit_budget_tokens": 30}})
    assert bounded.settings.policy == "confidence+budget"
    assert "guarantee" not in bounded.as_block()
