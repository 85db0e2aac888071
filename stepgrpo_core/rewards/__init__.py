"""Rewards, one per file.

To add a reward, write a frozen dataclass whose fields are its constants, with `source`,
`not_from_paper` and `__call__` (see `Reward`). A `GroupReward` needs only `rewards_of`, which
scores one group; `per_batch` maps a rule over the groups without their unscored completions. State
formula, paper and departures at the top of its file, and add it to `REWARDS`. Configurations then
know it.
"""

from dataclasses import fields, is_dataclass
from typing import Any

from stepgrpo_core.errors import InvalidSetting
from stepgrpo_core.names import suggest
from stepgrpo_core.plugins import is_own, load_object
from stepgrpo_core.rewards.accuracy import Accuracy
from stepgrpo_core.rewards.alp import AdaptiveLengthPenalty
from stepgrpo_core.rewards.base import Group, Reward, Rewards, per_batch, per_group
from stepgrpo_core.rewards.gfpo import GroupFiltered
from stepgrpo_core.rewards.gr3 import GroupRelativeRescaling
from stepgrpo_core.rewards.grpo_lambda import GrpoLambda
from stepgrpo_core.rewards.hard_limit import HardLimit
from stepgrpo_core.rewards.kimi import Kimi
from stepgrpo_core.rewards.l1_max import L1Max
from stepgrpo_core.rewards.laser import Laser
from stepgrpo_core.rewards.laser_d import LaserD
from stepgrpo_core.rewards.laser_de import LaserDE
from stepgrpo_core.rewards.lp import LengthPenalty
from stepgrpo_core.rewards.s_grpo import SGrpo
from stepgrpo_core.rewards.shorterbetter import ShorterBetter
from stepgrpo_core.rewards.sop import SoftOverlong
from stepgrpo_core.rewards.step_aware import StepAware

__all__ = [
    "REWARDS",
    "Accuracy",
    "AdaptiveLengthPenalty",
    "Group",
    "GroupFiltered",
    "GroupRelativeRescaling",
    "GrpoLambda",
    "HardLimit",
    "Kimi",
    "L1Max",
    "Laser",
    "LaserD",
    "LaserDE",
    "LengthPenalty",
    "Reward",
    "Rewards",
    "SGrpo",
    "ShorterBetter",
    "SoftOverlong",
    "StepAware",
    "build_reward",
    "per_batch",
    "per_group",
    "reward_class",
]

REWARDS: dict[str, type[Reward]] = {
    "accuracy": Accuracy,
    "alp": AdaptiveLengthPenalty,
    "gfpo": GroupFiltered,
    "gr3": GroupRelativeRescaling,
    "grpo-lambda": GrpoLambda,
    "hard-limit": HardLimit,
    "kimi": Kimi,
    "l1-max": L1Max,
    "laser": Laser,
    "laser-d": LaserD,
    "laser-de": LaserDE,
    "lp": LengthPenalty,
    "s-grpo": SGrpo,
    "shorterbetter": ShorterBetter,
    "sop": SoftOverlong,
    "step-aware": StepAware,
}
"""Rewards by their name in configurations."""


def reward_class(name: str, setting: str = "reward") -> type[Reward]:
    """Return the reward called `name`, or the user's own one: ``package.module:name`` or an entry
    point in group ``stepgrpo.rewards``. Raises InvalidSetting for `setting` if there is none."""
    if name in REWARDS:
        return REWARDS[name]
    if not is_own(name, "rewards"):
        raise InvalidSetting(setting, name, suggest(name, REWARDS))
    wanted = "a dataclass with source, not_from_paper and __call__"
    own: type[Reward] = load_object(name, setting, _is_reward, wanted, "rewards")
    return own


def _is_reward(found: Any) -> bool:
    described = all(hasattr(found, name) for name in ("source", "not_from_paper"))
    return isinstance(found, type) and is_dataclass(found) and described and _calls(found)


def _calls(kind: type) -> bool:
    """Return true if instances can be called; every class itself can."""
    return any("__call__" in vars(each) for each in kind.__mro__)


def build_reward(name: str, /, **constants: Any) -> Reward:
    """Return the named reward; raises InvalidSetting for an unknown name, constant or value."""
    kind = reward_class(name)
    known = [field.name for field in fields(kind)]
    for constant in constants.keys() - known:
        remedy = f"{name} takes {', '.join(known) or 'no constants'}"
        raise InvalidSetting(constant, constants[constant], remedy)
    return kind(**constants)
