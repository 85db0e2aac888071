"""Completions with boxes, and their rewards with the real grader."""

from stepgrpo_core import ExitReason
from tests.support.training.rollouts import rollout
from training.grading import Grader
from training.grpo.reward_func import RewardFunction
from training.rollouts.batch import Rollout

MARKERS = ("Wait", "Alternatively")


def completion(steps: int, box: str | None) -> str:
    thinking = "one" + " Wait, two" * (steps - 1)
    answer = "no answer" if box is None else f"\\boxed{{{box}}}"
    return f"<think>{thinking}</think>{answer}"


def score(
    reward: object, completions: list[str], golds: list[str], size: int
) -> tuple[list[float | None], dict[str, float]]:
    logged: dict[str, float] = {}
    rollouts: list[Rollout] = [rollout(ExitReason.NATURAL, 10 + row) for row in range(len(golds))]
    with Grader(seconds=60, workers=1) as grader:
        function = RewardFunction("named", reward, grader, MARKERS)  # type: ignore[arg-type]
        rewards = function(
            text=completions,
            answer=golds,
            rollout=rollouts,
            group_size=[size] * len(golds),
            log_metric=logged.__setitem__,
            prompts=["ignored"] * len(golds),
        )
    return rewards, logged
