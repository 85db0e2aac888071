"""Configurations: what is shipped loads, what is misspelt is refused where it stands."""

import math
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from stepgrpo_core import ExitSettings, StepAware
from stepgrpo_core.docstrings import field_docs
from stepgrpo_core.policies import POLICIES
from training.config.description import describe
from training.config.schema import (
    OWNED,
    InvalidConfig,
    ModelConfig,
    RewardConfig,
    RolloutConfig,
    RunConfig,
    SftSettings,
    dump_config,
    explain_config,
    load_config,
)


def written(folder: Path, text: str, name: str = "run.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def refusal(*overrides: str, names: Sequence[str | Path] = ("demo",)) -> str:
    with pytest.raises(InvalidConfig) as error:
        load_config(names, overrides)
    return str(error.value)


def test_later_files_lie_over_earlier_ones_and_overrides_over_all(tmp_path: Path) -> None:
    mine = written(tmp_path, "seed: 3\ntrl: {max_steps: 5}\nrollout: {exit: {markers: [Hm]}}")
    config = load_config(["demo", mine], ["trl.max_steps=7", "lora.r=8"])
    assert (config.seed, config.trl["max_steps"], config.trl["num_generations"]) == (3, 7, 8)
    assert config.rollout.exit.markers == ("Hm",)  # lists replace
    assert config.rollout.exit.policy == "confidence"  # mappings merge
    assert config.lora is not None
    assert (config.lora.r, config.lora.alpha) == (8, 64)
    assert load_config(["demo", "methods/deer-sft"], ["sft=null"]).sft is None


def test_an_exit_without_policy_keeps_the_rollouts_own(tmp_path: Path) -> None:
    text = (
        "output: o\nmodel: {name: m}\ndata: {train: [{demo: 4}]}\nrollout: {exit: {threshold: 1}}"
    )
    settings = load_config([written(tmp_path, text)]).rollout.exit
    assert (settings.policy, settings.threshold) == ("confidence", 1.0)


def test_another_reward_drops_the_constants_of_the_one_below() -> None:
    base = ["demo", "methods/step-grpo"]
    assert load_config(base, ["reward.settings.beta=0"]).reward.settings["alpha"] == 0.9
    assert load_config(base, ["reward.name=lp"]).reward == RewardConfig("lp")
    assert load_config([*base, "methods/lp"]).reward.settings == {"alpha": 0.1}


def test_the_reward_is_built_with_its_constants() -> None:
    config = load_config(["demo"], ["reward={name: step-aware, settings: {alpha: 1, beta: 0}}"])
    assert config.reward.build() == StepAware(alpha=1.0, beta=0.0)
    with pytest.raises(InvalidConfig, match=r"reward\.settings\.gamma is unknown"):
        RewardConfig("lp", {"gamma": 1}).build()


@pytest.mark.parametrize("share", [0, -0.5, 1.5])
def test_a_share_of_truncated_rollouts_is_one(share: float) -> None:
    assert "use a number above 0, at most 1" in refusal(f"rollout.truncated_share={share}")


@pytest.mark.parametrize("text", ["1e-6", "1E-6", "+1e-6", "1.e-6", "0.000001", "1.0e-06"])
def test_numbers_are_numbers_however_they_are_written(text: str) -> None:
    assert load_config(["demo"], [f"trl.learning_rate={text}"]).trl["learning_rate"] == 1e-6
    config = load_config(["demo"], [f"grading.seconds={text}"])
    assert math.isclose(config.grading.seconds, 1e-6)


@pytest.mark.parametrize("text", ["no", "off", "2026-01-31", "'12e45678'", "'true'", "'1'", "a: b"])
def test_text_stays_text_and_reads_back(text: str, tmp_path: Path) -> None:
    config = load_config(
        ["demo"], [f"model.revision={text!r}" if ": " in text else f"model.revision={text}"]
    )
    assert config.model.revision == text.strip("'")
    assert load_config([written(tmp_path, dump_config(config))]) == config


@pytest.mark.parametrize(
    ("override", "near"),
    [
        ("rolout.kind=plain", "rolout is unknown: did you mean 'rollout'?"),
        ("model.nam=x", "model.nam is unknown: did you mean 'name'?"),
        ("data.ngrams=1", "data.ngrams is unknown: did you mean 'ngram'?"),
        ("data.train=[{demo: 1, splt: x}]", "data.train.0.splt is unknown: did you mean 'split'?"),
        ("rollout.exit.treshold=1", "rollout.exit.treshold is unknown: did you mean 'threshold'?"),
        ("reward.settings.alhpa=1", "reward.settings.alhpa is unknown: did you mean 'alpha'?"),
        ("reward.name=step-awar", "reward.name='step-awar' is invalid: did you mean"),
        ("lora.rank=1", "lora.rank is unknown: use one of alpha, dropout, r, target_modules"),
        ("sft.sample=1", "sft.sample is unknown: did you mean 'samples'?"),
        ("trl.lerning_rate=1", "trl.lerning_rate is no field of trl.GRPOConfig: did you mean"),
        ("sft.trl.beta=1", "sft.trl.beta is no field of trl.SFTConfig"),
    ],
)
def test_an_unknown_key_names_its_place_and_the_nearest(override: str, near: str) -> None:
    assert refusal(override).startswith(f"override {override!r}: {near}")


def test_an_unknown_key_names_the_file_that_has_it_not_the_last(tmp_path: Path) -> None:
    wrong = written(tmp_path, "trl: {max_step: 3}")
    fine = written(tmp_path, "trl: {max_steps: 3}", "fine.yaml")
    message = refusal(names=["demo", wrong, fine])
    assert message == (
        f"{wrong}: trl.max_step is no field of trl.GRPOConfig: did you mean 'max_steps'?"
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed='3'", "seed='3' is invalid: use a whole number"),
        ("seed=true", "seed=True is invalid: use a whole number"),
        ("seed=", "seed=None is invalid: use a whole number"),
        ("seed=-1", "seed=-1 is invalid: use 0 or more"),
        ("model=demo", "model='demo' is invalid: use a mapping"),
        ("model.revision=12", "model.revision=12 is invalid: use text (quoted) or null"),
        ("model.dtype=fp16", "model.dtype='fp16' is invalid: use 'float32' or 'bfloat16'"),
        ("data.train={}", "data.train={} is invalid: use a list of mappings"),
        ("data.train.3.demo=1", "data.train.3 is no item of the list: there are items 0 to 0"),
        ("rollout.train_injected=yes", "'yes' is invalid: use true or false"),
        ("rollout.exit.threshold='0.9'", "threshold='0.9' is invalid: use a number"),
        ("rollout.exit.threshold=2", "threshold=2.0 is invalid: use a number from 0 to 1"),
        ("rollout.exit.markers=[1]", "markers=[1] is invalid: use a list of text (quoted)"),
        ("rollout.exit.verifier_url=http://x", "leave it out, and the model judges itself"),
        ("rollout.exit.policy=pattern", "policy pattern needs a regular expression"),
        ("rollout.exit.policy=none", "exit.policy='none' is invalid: nothing would be"),
        ("rollout.exit.policy=maybe", f"use one of {', '.join(POLICIES)}"),
        ("reward.settings.alpha=3", "reward.settings.alpha=3.0 is invalid: use a number"),
        ("grading.seconds=0", "grading.seconds=0.0 is invalid: use a number above 0"),
        ("grading.grader=mine", "grader='mine' is invalid: write package.module:name"),
        ("grading.grader=nowhere:score", "ModuleNotFoundError: No module named 'nowhere'"),
        ("grading.grader=builtins:len", "name a function of an answer and its gold"),
        (
            "grading={grader: 'operator:eq', pay_unevaluated: true}",
            "your grader decides what is paid: leave it out",
        ),
        ("lora.dropout=1", "lora.dropout=1.0 is invalid"),
        ("lora.target_modules=q", "use a list of text (quoted) or 'all-linear'"),
        ("sft={samples: 2, keep: 3}", "sft.keep=3 is invalid: use at most samples, 2"),
        ("trl.learning_rate=fast", "trl.learning_rate='fast' is invalid: use a number"),
        ("trl.scale_rewards=true", "scale_rewards=True is invalid: use text (quoted)"),
        ("trl.save_strategy=1", "use 'no' or 'steps' or 'epoch' or 'best' or text (quoted)"),
        ("trl.num_generations=5", "generates 64 completions at a time"),
        ("trl.num_generations=1", "use a divisor of that, 2 or more"),
    ],
)
def test_a_wrong_value_names_key_value_and_remedy(override: str, message: str) -> None:
    text = refusal(override)
    section = re.split("[=.]", override, maxsplit=1)[0]
    assert text.startswith(f"override {override!r}: {section}")
    assert message in text


@pytest.mark.parametrize("name", OWNED)
def test_what_the_run_owns_is_refused_in_trl(name: str) -> None:
    assert refusal(f"trl.{name}=1").endswith(f"trl.{name} belongs to the run: {OWNED[name]}")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "write section.key=value"),
        ("=3", "write section.key=value"),
        ("rollout..kind=plain", "write section.key=value"),
        ("seed=[", "this is not YAML"),
        ("lora={r: 1, r: 2}", "r occurs twice"),
        ("seed.of.data=1", "seed={'of': {'data': 1}} is invalid: use a whole number"),
        ("seed=!!python/name:os.system", "this is not YAML"),
    ],
)
def test_an_override_that_is_none_is_refused(override: str, message: str) -> None:
    text = refusal(override)
    assert text.startswith(f"override {override!r}")
    assert message in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 1\ntrl:\n  beta: 0\n  beta: 1\n", "run.yaml, line 4: beta occurs twice; keep one"),
        ("data: {train: [{demo: 1, demo: 2}]}", "line 1: demo occurs twice"),
        ("- seed", "run.yaml: the file holds no mapping"),
        ("", "run.yaml: the file holds no mapping"),
        ("seed: [", "run.yaml: this is not YAML"),
        ("extends: [demo]", "run.yaml: extends=['demo'] is not one file or preset"),
        ("extends: dmo", "'dmo' is neither a file nor a shipped preset: did you mean 'demo'?"),
        ("model: {name: m}", "run.yaml: output is missing: write text"),
        ("extends: demo\n1: 2", "run.yaml: 1 is unknown"),
    ],
)
def test_a_file_that_says_nothing_certain_is_refused(
    text: str, message: str, tmp_path: Path
) -> None:
    assert message in refusal(names=[written(tmp_path, text)])


def test_a_missing_key_of_a_section_names_the_section_and_its_file(tmp_path: Path) -> None:
    path = written(tmp_path, "output: o\nmodel: {dtype: float32}\ndata: {train: [{demo: 4}]}")
    assert refusal("seed=1", names=[path]).startswith(f"{path}: model.name is missing")


def test_a_run_needs_a_name() -> None:
    assert "no configuration is named: use one of demo, demo-lora, methods/" in refusal(names=[])


def test_extends_is_relative_to_its_file_and_may_not_go_in_a_circle(tmp_path: Path) -> None:
    written(tmp_path, "extends: demo\nseed: 1\noutput: low", "low.yaml")
    (tmp_path / "sub").mkdir()
    high = written(tmp_path / "sub", "extends: ../low.yaml\noutput: high", "high.yaml")
    config = load_config([high])
    assert (config.seed, config.output, config.model.name) == (1, "high", "models/demo-base")
    written(tmp_path, "extends: sub/high.yaml", "low.yaml")
    assert "goes in a circle: high.yaml -> low.yaml -> high.yaml; remove one" in refusal(
        names=[high]
    )


def test_an_explained_configuration_reads_back_and_has_a_text_for_each_key(tmp_path: Path) -> None:
    config = load_config(["demo", "methods/deer-sft"], ["data.prompt_suffix=' a\\n'"])
    text = explain_config(config)
    assert load_config([written(tmp_path, text)]) == config
    assert "  # Completions sampled per prompt.\n  samples: 8\n" in text
    said = re.sub(r"\n *# ", " ", text)
    sections = (RunConfig, ModelConfig, RolloutConfig, ExitSettings, SftSettings)
    docs = [doc for section in sections for doc in field_docs(section).values()]
    assert [doc for doc in docs if doc not in said] == []


def test_describe_names_the_sources_and_what_is_not_theirs() -> None:
    method, disputed, scripts = describe(load_config(["qwen3-8b"])).splitlines()
    assert method == ("method: Step-GRPO (arXiv 2604.16890), reward step-aware, rollout truncated")
    assert disputed == (
        "sources disagree: alpha=0.9 (the authors' scripts have 0.9 and say that they follow the "
        "paper; the paper as noted has 0.1)"
    )
    assert scripts == (
        "other than in the authors' scripts: markers=('Wait', 'Alternatively') "
        "(scripts: ('Wait',)), min_interval=16 (scripts: 0), no exit at repetition "
        "(scripts: at three equal chunks)"
    )
    theirs = ["markers=[Wait]", "min_interval=0", "policy=confidence+repetition"]
    same = describe(load_config(["qwen3-8b"], [f"rollout.exit.{each}" for each in theirs]))
    assert "policy='confidence+repetition'" not in same
    assert "authors' scripts:" not in same
    assert "truncated_share=0.5 (scripts: all)" in describe(load_config(["demo"]))
    changed = describe(load_config(["demo"], ["reward.settings.beta=0"])).splitlines()
    assert changed[2] == "not from its paper: beta=0.0"
    assert "not from its paper" not in describe(load_config(["demo", "methods/lp"]))
    assert "authors" not in describe(load_config(["demo", "methods/lp"]))
    assert "samples=8" in describe(load_config(["demo", "methods/deer-sft"]))


def test_describe_warns_of_a_limit_that_no_completion_reaches() -> None:
    names = ["demo", "methods/laser"]
    line = "never reached below trl.max_completion_length=512: target=4096"
    assert line in describe(load_config(names))
    assert "never" not in describe(load_config(names, ["reward.settings.target=100"]))


def test_importing_the_configuration_loads_neither_torch_nor_trl() -> None:
    code = (
        "import sys, training.config.schema; print({'torch', 'trl', 'datasets'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
