"""The configuration of a training run: typed, checked before anything is loaded.

`load_config` reads presets and files, one over the other, then overrides. What it does not know
it refuses, with the file, the dotted key and the nearest right name; so a run never goes on with
a misspelt setting. `dump_config` writes what was understood; it reads back as the same run.
"""

import dataclasses
import functools
import math
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from stepgrpo_core.errors import InvalidSetting
from stepgrpo_core.families.table import Choice
from stepgrpo_core.policies import ExitSettings, build_policy
from stepgrpo_core.rewards import REWARDS, Reward
from stepgrpo_core.savings.baseline import MIN_RUNS
from training.config.layers import (
    InvalidConfig,
    Route,
    dump_yaml,
    merge,
    nearest,
    origin_of,
    parse_override,
    preset_names,
    read_layers,
)
from training.config.trl import check_fine_tuning, check_grpo, check_lengths, trl_class
from training.config.typed import at_least, build, check_leaf, refused
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
    "describe",
    "dump_config",
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
"""Fields of TRL's configuration that the run sets itself, and what to write instead."""

DEFAULTS = {"vllm_importance_sampling_mode": "token_truncate", "report_to": "none"}
"""Fields of TRL's configuration that have another default here."""

SCRIPTS: Mapping[str, Any] = {
    "threshold": 0.95,
    "markers": ("Wait",),
    "min_interval": 0,
    "max_probes": 10,
}
"""Exit settings of the authors' published scripts, which also exit at repetition."""

CONFIDENCE = ExitSettings(policy="confidence")


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The model that is trained."""

    name: str
    """Directory or hub name."""
    revision: str | None = None
    """Branch, tag or commit of a hub model; None: its newest, which can change."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Of the trained weights. At learning rates near 1e-6 bfloat16 rounds most updates away: use
    float32 with `trl.bf16` to train every weight; vLLM is in bfloat16 then."""
    trust_remote_code: bool = False
    """Run the repository's own code: only for authors you trust."""
    served_name: str | None = None
    """What serving calls the trained model; None: the output folder's name."""
    family: str | None = None
    """How it writes thinking; None: its tokenizer tells."""
    families: Mapping[str, Any] = field(default_factory=dict)
    """More families, from name to fields, as in the server's YAML file."""

    def __post_init__(self) -> None:
        self.choice  # noqa: B018 - raises InvalidSetting

    @property
    def choice(self) -> Choice:
        """The family that is named, and those that are described."""
        return Choice(self.family, self.families)


@dataclass(frozen=True, slots=True)
class RolloutConfig:
    """How completions are made. Evaluation never truncates."""

    kind: Literal["truncated", "plain", "serial"] = "truncated"
    """`truncated`: Step-GRPO's Dynamic Truncated Rollout; `plain`: none of it; `serial`: S-GRPO's
    cuts of one chain."""
    truncated_share: float = 1.0
    """Of the completions in each group, for kind `truncated`; the others run to their own end.
    Where every completion is truncated at the same step, all have the same k and the model is
    never paid for closing its thinking itself; a few that run on show it the difference. Ours;
    the paper truncates all."""
    probing: Literal["parallel", "sequential"] = "parallel"
    """`parallel` thinks on during a probe; `sequential` waits. They decide alike."""
    train_injected: bool = True
    """Injected closing tokens carry loss, as in the authors' code."""
    exit: ExitSettings = CONFIDENCE
    """When a truncated rollout ends the thinking, and the markers that every kind counts."""

    def __post_init__(self) -> None:
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
    """What completions are paid for."""

    name: str = "step-aware"
    """Name in `stepgrpo_core.REWARDS`."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Constants that differ from the method's defaults."""

    def build(self) -> Reward:
        """The reward; raises InvalidConfig for a name, constant or value that it does not know."""
        if self.name not in REWARDS:
            raise refused(("reward", "name"), self.name, nearest(self.name, REWARDS))
        reward: Reward = build(REWARDS[self.name], self.settings, ("reward", "settings"))
        return reward


@dataclass(frozen=True, slots=True)
class GradingConfig:
    """Comparing answers with the truth, in processes that can be killed."""

    seconds: float = 5.0
    """Processor time for one answer; over it, it is wrong where its arithmetic was left standing
    and would not be paid anyway, else unscored."""
    workers: int = 2
    """Processes; each takes one core, and a spare one waits."""
    pay_unevaluated: bool = False
    """Whether an answer of the right value is correct with arithmetic left standing in it. A
    question's own formula is such an answer, so a policy learns to copy it."""

    def __post_init__(self) -> None:
        if not self.seconds > 0:
            raise InvalidSetting("seconds", self.seconds, "use a number above 0")
        at_least(1, workers=self.workers)


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """Low-rank adapters instead of full fine-tuning; merged when saved for serving."""

    r: int = 32
    """Rank."""
    alpha: int = 64
    """Scale: the adapter counts alpha / r."""
    dropout: float = 0.0
    """In [0, 1). 0, since dropout makes trainer and engine disagree about probabilities."""
    target_modules: tuple[str, ...] | Literal["all-linear"] = "all-linear"
    """Names of the layers that get one."""

    def __post_init__(self) -> None:
        at_least(1, r=self.r, alpha=self.alpha)
        if not 0 <= self.dropout < 1:
            raise InvalidSetting("dropout", self.dropout, "use a number from 0 to below 1")


@dataclass(frozen=True, slots=True)
class SftSettings:
    """DEER+SFT: sample with exits, keep what is right and short, fine-tune on it."""

    samples: int = 8
    """Completions per prompt."""
    keep: int = 1
    """Shortest correct completions kept per prompt."""
    max_rows: int | None = None
    """Rows of the fine-tuning set at most; None: all."""
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
    """Everything about one run."""

    output: str
    """Folder of checkpoints, curves and the finished model."""
    model: ModelConfig
    """What is trained."""
    data: DataConfig
    """On which problems."""
    rollout: RolloutConfig = RolloutConfig()
    """How completions are made."""
    reward: RewardConfig = RewardConfig()
    """What they are paid for."""
    grading: GradingConfig = GradingConfig()
    """How answers are judged."""
    lora: LoraSettings | None = None
    """Adapters; None trains every weight."""
    sft: SftSettings | None = None
    """Given: the run is rejection sampling and fine-tuning instead of GRPO."""
    calibration_prompts: int = 200
    """Completions sampled at the end, un-exited, for the server's savings; 0: no calibration."""
    seed: int = 0
    """Of data order, sampling and adapters."""
    trl: Mapping[str, Any] = field(default_factory=dict)
    """Fields of trl.GRPOConfig, but for those in `OWNED`."""

    def __post_init__(self) -> None:
        at_least(0, calibration_prompts=self.calibration_prompts, seed=self.seed)
        if 0 < self.calibration_prompts < MIN_RUNS:
            remedy = f"use 0 for no calibration, or {MIN_RUNS} or more"
            raise InvalidSetting("calibration_prompts", self.calibration_prompts, remedy)


def load_config(names: Sequence[str | Path], overrides: Sequence[str] = ()) -> RunConfig:
    """The run that presets or YAML files `names` describe, later over earlier, then `overrides`.

    A file may name one below it with ``extends``. An override is ``rollout.exit.threshold=0.9``
    with a YAML value. Raises InvalidConfig.
    """
    if not names:
        raise InvalidConfig(f"no configuration is named: {nearest('', preset_names())}")
    layers = [layer for name in names for layer in read_layers(str(name), Path())]
    layers += [parse_override(text) for text in overrides]
    try:
        config: RunConfig = build(RunConfig, merge(layers), ())
        _check(config)
    except InvalidConfig as error:
        raise InvalidConfig(error.problem, error.route, origin_of(layers, error.route)) from error
    return config


def dump_config(config: RunConfig) -> str:
    """All settings as YAML, which `load_config` reads back to an equal configuration."""
    return dump_yaml(dataclasses.asdict(config))


def describe(config: RunConfig) -> str:
    """The method, its source and the settings that are not its: lines for a run's log."""
    if config.sft:
        return (
            "method: DEER+SFT (DEER: arXiv 2504.15895), rejection sampling and fine-tuning\n"
            f"not its paper's: samples={config.sft.samples}, keep={config.sft.keep}, sft.trl"
        )
    reward = config.reward.build()
    longest = config.trl.get("max_completion_length", math.inf)
    sources: Mapping[str, str] = getattr(reward, "disputed", {})
    ours, idle, disputed = [], [], []
    for each in dataclasses.fields(reward):
        value = getattr(reward, each.name)
        if each.name in sources:
            disputed.append(f"{each.name}={value!r} ({sources[each.name]})")
        elif each.name in reward.not_from_paper or value != each.default:
            ours.append(f"{each.name}={value!r}")
        if each.name in ("limit", "target") and value > longest:
            idle.append(f"{each.name}={value!r}")
    lines = {
        "method": [reward.source, f"reward {config.reward.name}", f"rollout {config.rollout.kind}"],
        "sources disagree": disputed,
        "not its paper's": ours,
        "not the authors' scripts'": _departures(config.rollout),
        f"never reached below trl.max_completion_length={longest}": idle,
    }
    return "\n".join(f"{title}: {', '.join(parts)}" for title, parts in lines.items() if parts)


def prompt_template(config: RunConfig) -> PromptTemplate:
    """How the run's prompts are rendered, in training and in its calibration."""
    return PromptTemplate(config.data.system_prompt, config.trl.get("chat_template_kwargs") or {})


def _departures(rollout: RolloutConfig) -> list[str]:
    """What truncates rollouts otherwise than the published scripts of Step-GRPO do."""
    if rollout.kind != "truncated":
        return []
    differ = [
        f"{name}={value!r} (there {theirs!r})"
        for name, theirs in SCRIPTS.items()
        if (value := getattr(rollout.exit, name)) != theirs
    ]
    policies = rollout.exit.policy.split("+")
    if "confidence" not in policies:
        differ.append(f"policy={rollout.exit.policy!r} (there 'confidence+repetition')")
    if rollout.truncated_share != 1:
        differ.append(f"truncated_share={rollout.truncated_share} (there all)")
    if "repetition" not in policies:
        differ.append("no exit at repetition (there at three equal chunks)")
    return differ


def _check(config: RunConfig) -> None:
    """Refuse what no single section can see; raises InvalidConfig."""
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
            raise InvalidConfig(f" is no field of trl.{name}: {nearest(key, hints)}", (*route, key))
        if key in OWNED:
            raise InvalidConfig(f" belongs to the run: {OWNED[key]}", (*route, key))
        check_leaf(hints[key], value, (*route, key))


@functools.cache
def _trl_hints(name: str) -> dict[str, Any]:
    cls = trl_class(name)
    hints = typing.get_type_hints(cls)
    return {each.name: hints[each.name] for each in dataclasses.fields(cls)}
