"""From completions to rewards, with the real grader."""

import re
from pathlib import Path

import pytest

from stepgrpo_core import ExitReason, StepAware
from stepgrpo_core.rewards import Accuracy, GrpoLambda
from tests.support.training.rewarding import MARKERS, completion, score
from tests.support.training.rollouts import rollout
from training.config.schema import load_config
from training.grading import Grader, grader_of
from training.grpo.reward_func import RewardFunction


def test_a_group_is_scored_against_the_mean_of_its_own_correct_completions() -> None:
    completions = [completion(1, "7"), completion(3, "7"), completion(9, "8"), completion(2, None)]
    rewards, logged = score(StepAware(), completions, ["7"] * 4, 4)
    mu = 2.0
    assert logged["steps/mu_mean"] == mu
    assert rewards[0] == pytest.approx(0.9 * (1 - 0.5 * -0.46211715726) + 0.1)  # tanh(-1/2)
    assert rewards[1] == pytest.approx(0.9 * (1 - 0.5 * 0.46211715726) + 0.1)
    assert rewards[2:] == pytest.approx([0.1, 0.0])  # a box; none
    assert logged["grading/accuracy"] == 0.5
    assert logged["steps/k_mean"] == 15 / 4


def test_what_cannot_be_graded_is_none_and_counted_never_0() -> None:
    completions = [completion(1, "7"), completion(1, "6"), completion(1, "1"), completion(1, "2")]
    rewards, logged = score(Accuracy(), completions, ["7", "7", "\\frac{1}{0}", "2"], 2)
    assert rewards == [1.0, 0.0, None, 1.0]
    assert logged["grading/unscored_share"] == 0.25


def test_a_method_over_the_batch_sees_all_groups() -> None:
    completions = [completion(1, "7")] * 2 + [completion(1, "7"), completion(1, "0")]
    rewards, _ = score(GrpoLambda(top_fraction=0.5, alpha=0.6), completions, ["7"] * 4, 2)
    assert rewards[:2] != [1.0, 1.0]  # the better half of the groups pays for length
    assert rewards[2:] == [1.0, 0.0]


def test_its_name_is_what_the_trainer_logs() -> None:
    with Grader() as grader:
        assert RewardFunction("step-aware", StepAware(), grader, MARKERS).__name__ == "step-aware"


def test_batches_without_any_reward_say_so_and_why_at_growing_distances(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def pay(function: RewardFunction, box: str) -> str:
        function(
            text=[completion(1, box), completion(1, None)],
            answer=["7", "7"],
            rollout=[rollout(ExitReason.NATURAL, 10)] * 2,
            group_size=[2, 2],
            log_metric=lambda _name, _value: None,
            prompts=["ignored"] * 2,
        )
        return capsys.readouterr().out

    with Grader() as grader:
        function = RewardFunction("named", Accuracy(), grader, MARKERS)
        told = [pay(function, "8") for _ in range(5)]
        assert [bool(each) for each in told] == [True, True, False, True, False]
        assert "every reward of 4 batches in a row was 0 (different: 1, no box: 1)" in told[3]
        assert pay(function, "7") == ""
        assert "of 1 batches" in pay(function, "8")


def test_a_grader_of_the_users_own_decides_what_is_paid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "grader.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "capitals.py").write_text(example, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    config = load_config(["demo"], ["grading.grader=capitals:score"])
    answers = ["It is Rome.", "It is Paris.", None]
    golds = ["Rome", "Rome", ""]
    with grader_of(config.grading, "<think>", "</think>") as grader:
        rewards = RewardFunction("named", Accuracy(), grader, MARKERS)(
            text=[completion(1, answer) for answer in answers],
            answer=golds,
            rollout=[rollout(ExitReason.NATURAL, 10)] * 3,
            group_size=[3] * 3,
            log_metric=lambda _name, _value: None,
            prompts=["ignored"] * 3,
        )
    assert rewards == [1.0, 0.0, None]
