"""The typed configuration of a training run, checked before anything is loaded.

`load_config` merges presets and files in their order, then overrides. An unknown key is an error
that names the file, the key and the closest known one. `dump_config` writes the result, which reads
back as the same run.
"""

import dataclasses
import functools
import textwrap
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from stepgrpo_core.docstrings import field_docs
from stepgrpo_core.errors import InvalidSetting
from stepgrpo_core.families.table import FamilyChoice
from stepgrpo_core.names import suggest
from stepgrpo_core.plugins import load_object, takes
from stepgrpo_core.policies import ExitSettings, build_policy, load_policies
from stepgrpo_core.rewards import Reward, reward_class
from stepgrpo_core.savings.baseline import MIN_RUNS
from training.config.layers import (
    InvalidConfig,
    Route,
    dump_yaml,
    merge,
    origin_of,
    parse_override,
    preset_names,
    read_layers,
)
from training.config.trl import check_fine_tuning, check_grpo, check_lengths, trl_class
from training.config.typed import at_least, build, check_leaf
from training.data.dataset import DataConfig
from training.data.prompts import PromptTemplate
from training.rollouts.patterns import matcher_of
from training.rollouts.probes import check_judge

__all__ = [
    "GradingConfig",
    "InvalidConfig",
    "LoraSettings",
    "ModelConfig",
    "RewardConfig",
    "RolloutConfig",
    "RunConfig",
    "SftSettings",
    "dump_config",
    "explain_config",
    "load_config",
    "preset_names",
    "prompt_template",
]

OWNED = {
    "output_dir": "set output",
    "seed": "set seed, which also draws the data",
    "use_cpu": "leave it out; a GPU is used where there is one",
    "use_vllm": "leave it out; rollouts always run on vLLM",
    "logging_nan_inf_filter": "leave it out; it would hide a loss that is not finite",
    "remove_unused_columns": "leave it out; rewards read every column",
    "reward_weights": "set reward.name; a run has one reward",
    "model_init_kwargs": "set model.dtype and model.revision",
    "trust_remote_code": "set model.trust_remote_code",
    "resume_from_checkpoint": "pass --resume",
    "generation_batch_size": "set trl.steps_per_generation, right for any number of processes",
}
"""Fields of TRL's configuration that other settings decide, each with its remedy."""

DEFAULTS = {"vllm_importance_sampling_mode": "token_truncate", "report_to": "none"}
"""Defaults that differ from TRL's."""

CONFIDENCE = ExitSettings(policy="confidence")


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The model that is trained."""

    name: str
    """Directory or hub name of the model."""
    revision: str | None = None
    """Branch, tag or commit of a hub model. None means its newest, which can change."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Data type of the trained weights. At learning rates near 1e-6 bfloat16 rounds most updates
    away: to train every weight use float32 with `trl.bf16`, where vLLM still runs in bfloat16."""
    trust_remote_code: bool = False
    """Run code from the model's repository; only for authors you trust."""
    served_name: str | None = None
    """Name of the trained model for serving. None means the name of the output folder."""
    family: str | None = None
    """Model family, which tells how the model writes thinking. None means the one that its
    tokenizer shows."""
    families: Mapping[str, Any] = field(default_factory=dict)
    """More model families, from name to fields, as in the server's YAML file."""

    def __post_init__(self) -> None:
        self.choice  # noqa: B018 - raises InvalidSetting

    @property
    def choice(self) -> FamilyChoice:
        """Return the choice of a family: its name and the described families."""
        return FamilyChoice(self.family, self.families)


@dataclass(frozen=True, slots=True)
class RolloutConfig:
    """Settings of the generation of completions in training; evaluation never truncates them."""

    kind: Literal["truncated", "plain", "serial"] = "truncated"
    """How rollouts end: `truncated` as in Step-GRPO's Dynamic Truncated Rollout, `plain` at their
    own end, `serial` at S-GRPO's cuts of one chain."""
    truncated_share: float = 1.0
    """Share of the completions of each group that kind `truncated` truncates. If all are truncated
    at the same step they have the same k, and the model is never rewarded for closing its thinking
    itself; a few that run to their end show it the difference. The paper truncates all."""
    probing: Literal["parallel", "sequential"] = "parallel"
    """Go on thinking during a probe (`parallel`) or wait for it (`sequential`); the decisions are
    the same."""
    train_injected: bool = True
    """Include injected closing tokens in the loss, as the authors' code does."""
    exit: ExitSettings = CONFIDENCE
    """Exit settings of truncated rollouts; their markers count the steps of every kind."""

    def __post_init__(self) -> None:
        load_policies(self.exit.policy)
        build_policy(self.exit, matcher_of(self.exit))
        check_judge(self.exit)
        if not 0 < self.truncated_share <= 1:
            raise InvalidSetting(
                "truncated_share", self.truncated_share, "use a number above 0, at most 1"
            )
        if self.kind == "truncated" and self.exit.policy == "none":
            raise InvalidSetting(
                "exit.policy", "none", "nothing would be truncated: use kind plain"
            )


@dataclass(frozen=True, slots=True)
class RewardConfig:
    """Settings of the reward."""

    name: str = "step-aware"
    """Name of the reward: one of `stepgrpo_core.REWARDS`, or your own as package.module:name or an
    entry point in group stepgrpo.rewards."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Constants of the reward that differ from its defaults."""

    def __post_init__(self) -> None:
        reward_class(self.name, "name")

    def build(self) -> Reward:
        """Return the reward; raises InvalidConfig for an unknown constant or its value."""
        reward: Reward = build(reward_class(self.name), self.settings, ("reward", "settings"))
        return reward


@dataclass(frozen=True, slots=True)
class GradingConfig:
    """Settings of grading: answers are compared with gold answers, in processes that can be
    killed."""

    seconds: float = 5.0
    """Processor time for grading one answer. An answer that takes longer is unscored, or wrong if
    it is unevaluated arithmetic that would not be paid."""
    workers: int = 2
    """Grading processes; each takes one core, and a spare one waits."""
    pay_unevaluated: bool = False
    """Count an answer of the right value as correct even if it is unevaluated arithmetic. The
    question's own formula is such an answer, so a policy learns to copy it."""
    grader: str | None = None
    """A function that grades instead, as package.module:name or an entry point in group
    stepgrpo.graders: of the text after the thinking and the gold answer, to True, False or None
    (unscored). No limit and no process of the built-in grader applies to it."""

    def __post_init__(self) -> None:
        if self.grader is not None:
            wanted = "a function of an answer and its gold"
            load_object(self.grader, "grader", takes(2), wanted, "graders")
            if self.pay_unevaluated:
                remedy = "your grader decides what is paid: leave it out"
                raise InvalidSetting("pay_unevaluated", self.pay_unevaluated, remedy)
        if not self.seconds > 0:
            raise InvalidSetting("seconds", self.seconds, "use a number above 0")
        at_least(1, workers=self.workers)


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """Low-rank adapters instead of full fine-tuning; merged when saved for serving."""

    r: int = 32
    """Rank of the adapters."""
    alpha: int = 64
    """Scale: the adapters' output is multiplied by alpha / r."""
    dropout: float = 0.0
    """Dropout of the adapters, from 0 to below 1. Use 0: with dropout, trainer and engine compute
    different probabilities."""
    target_modules: tuple[str, ...] | Literal["all-linear"] = "all-linear"
    """Names of the layers that get an adapter."""

    def __post_init__(self) -> None:
        at_least(1, r=self.r, alpha=self.alpha)
        if not 0 <= self.dropout < 1:
            raise InvalidSetting("dropout", self.dropout, "use a number from 0 to below 1")


@dataclass(frozen=True, slots=True)
class SftSettings:
    """DEER+SFT: sample with exits, keep short correct completions, and fine-tune on them."""

    samples: int = 8
    """Completions sampled per prompt."""
    keep: int = 1
    """Shortest correct completions kept per prompt."""
    max_rows: int | None = None
    """Largest number of rows of the fine-tuning set. None means all."""
    trl: Mapping[str, Any] = field(default_factory=dict)
    """Fields of trl.SFTConfig."""

    def __post_init__(self) -> None:
        at_least(1, samples=self.samples, keep=self.keep)
        if self.max_rows is not None:
            at_least(1, max_rows=self.max_rows)
        if self.keep > self.samples:
            raise InvalidSetting("keep", self.keep, f"use at most samples, {self.samples}")


@dataclass(frozen=True, slots=True)
class RunConfig:
    """All settings of one run."""

    output: str
    """Folder for checkpoints, learning curves and the finished model."""
    model: ModelConfig
    """The model that is trained."""
    data: DataConfig
    """The problems that it is trained on."""
    rollout: RolloutConfig = RolloutConfig()
    """How completions are generated."""
    reward: RewardConfig = RewardConfig()
    """How completions are rewarded."""
    grading: GradingConfig = GradingConfig()
    """How answers are graded."""
    lora: LoraSettings | None = None
    """Low-rank adapters. None trains every weight."""
    sft: SftSettings | None = None
    """Rejection sampling and fine-tuning, for `stepgrpo-train sft`. None means GRPO."""
    shown_groups: int = 4
    """Groups of each generation whose completions are kept for `stepgrpo-train show` and `compare`;
    0 for none."""
    calibration_prompts: int = 200
    """Completions without exits that are sampled at the end, from which the server predicts its
    savings; 0 for none."""
    seed: int = 0
    """Seed of the data order, of sampling and of adapters."""
    trl: Mapping[str, Any] = field(default_factory=dict)
    """Fields of trl.GRPOConfig, except those that other settings decide. Other defaults than there:
    vllm_importance_sampling_mode token_truncate, report_to none."""

    def __post_init__(self) -> None:
        at_least(
            0,
            calibration_prompts=self.calibration_prompts,
            shown_groups=self.shown_groups,
            seed=self.seed,
        )
        if 0 < self.calibration_prompts < MIN_RUNS:
            remedy = f"use 0 for no calibration, or {MIN_RUNS} or more"
            raise InvalidSetting("calibration_prompts", self.calibration_prompts, remedy)


def load_config(names: Sequence[str | Path], overrides: Sequence[str] = ()) -> RunConfig:
    """Return the run that presets or YAML files describe, later over earlier, then `overrides`.

    A file may extend another one with ``extends``. An override is ``rollout.exit.threshold=0.9``
    with a YAML value. Raises InvalidConfig.
    """
    if not names:
        raise InvalidConfig(f"no configuration is named: {suggest('', preset_names())}")
    layers = [layer for name in names for layer in read_layers(str(name), Path())]
    layers += [parse_override(text) for text in overrides]
    try:
        config: RunConfig = build(RunConfig, merge(layers), ())
        _check(config)
    except InvalidConfig as error:
        raise InvalidConfig(error.problem, error.route, origin_of(layers, error.route)) from error
    return config


def dump_config(config: RunConfig) -> str:
    """Return all settings as YAML, which `load_config` reads back as an equal configuration."""
    return dump_yaml(dataclasses.asdict(config))


def explain_config(config: RunConfig) -> str:
    """Return `dump_config` with a comment above each key: the docstring of its field."""
    return _commented(config, dataclasses.asdict(config))


def _commented(section: Any, values: Mapping[str, Any]) -> str:
    docs, parts = field_docs(type(section)), []
    for name, value in values.items():
        below = getattr(section, name)
        if dataclasses.is_dataclass(below):
            text = f"{name}:\n{textwrap.indent(_commented(below, value), '  ')}"
        else:
            text = dump_yaml({name: value})
        comment = textwrap.indent(textwrap.fill(docs[name], 90), "# ")
        parts.append(f"{comment}\n{text}")
    return "".join(parts)


def prompt_template(config: RunConfig) -> PromptTemplate:
    """Return the template that renders the run's prompts, in training and in its calibration."""
    return PromptTemplate(config.data.system_prompt, config.trl.get("chat_template_kwargs") or {})


def _check(config: RunConfig) -> None:
    """Raise InvalidConfig for settings that are invalid together."""
    config.reward.build()
    _check_trl("GRPOConfig", config.trl, ("trl",))
    longest = config.data.max_prompt_tokens
    if config.sft:
        _check_trl("SFTConfig", config.sft.trl, ("sft", "trl"))
        check_fine_tuning(config.sft.trl)
        check_lengths(config.trl, longest)
    else:
        trl = {**DEFAULTS, **config.trl}
        check_grpo(trl, truncated=config.rollout.kind == "truncated", longest_prompt=longest)


def _check_trl(name: str, values: Mapping[str, Any], route: Route) -> None:
    hints = _trl_hints(name)
    for key, value in values.items():
        if key not in hints:
            raise InvalidConfig(f" is no field of trl.{name}: {suggest(key, hints)}", (*route, key))
        if key in OWNED:
            raise InvalidConfig(f" belongs to the run: {OWNED[key]}", (*route, key))
        check_leaf(hints[key], value, (*route, key))


@functools.cache
def _trl_hints(name: str) -> dict[str, Any]:
    cls = trl_class(name)
    hints = typing.get_type_hints(cls)
    return {each.name: hints[each.name] for each in dataclasses.fields(cls)}
