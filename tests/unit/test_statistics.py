"""What is logged about a batch, computed by hand."""

import pytest

from stepgrpo_core import ExitReason, Group
from tests.support.training.rollouts import rollout
from training.grpo.metrics import group_statistics, rollout_statistics


def test_exits_probes_and_true_lengths_of_a_batch() -> None:
    stats = rollout_statistics(
        [
            rollout(ExitReason.CONFIDENT, 40, (0.2, 0.99), probe_tokens=12, discarded_tokens=8),
            rollout(ExitReason.NATURAL, 60, (0.5,), probe_tokens=6),
            rollout(ExitReason.LENGTH, 100),
            rollout(ExitReason.NATURAL, 24),
        ]
    )
    assert stats == pytest.approx(
        {
            "exits/confident": 0.25,
            "exits/natural": 0.5,
            "exits/length": 0.25,
            "exits/truncated_share": 0.25,
            "length/mean": 56,
            "length/max": 100,
            "length/unfinished_share": 0.25,
            "length/reasoning_mean": 28,
            "probes/per_rollout": 0.75,
            "probes/token_share": 18 / 250,
            "probes/discarded_share": 8 / 250,
            "probes/confidence_p10": 0.2,
            "probes/confidence_p50": 0.5,
            "probes/confidence_p90": 0.99,
        }
    )


def test_no_rollouts_give_no_statistics() -> None:
    assert rollout_statistics([]) == {}


def test_steps_and_correctness_of_groups_leave_the_unscored_out() -> None:
    def group(correct: tuple[bool | None, ...], steps: tuple[int, ...]) -> Group:
        size = len(correct)
        return Group(correct, (True,) * size, steps, (30,) * size, (True,) * size)

    stats = group_statistics(
        [
            group((True, True, None), (1, 3, 9)),
            group((False, False, False), (2, 2, 2)),
            group((True, False, None), (4, 1, 1)),
        ]
    )
    assert stats == pytest.approx(
        {
            "steps/k_mean": 25 / 9,
            "steps/tokens_per_step": 270 / 25,
            "steps/mu_mean": (2 + 4) / 2,
            "groups/all_correct_share": 1 / 3,
            "groups/all_wrong_share": 1 / 3,
            "grading/unscored_share": 2 / 9,
            "grading/accuracy": 3 / 7,
        }
    )


def test_a_batch_that_could_not_be_graded_has_no_accuracy() -> None:
    stats = group_statistics([Group((None,), (True,), (1,), (3,), (True,))])
    assert stats["grading/unscored_share"] == 1
    assert "grading/accuracy" not in stats
    assert "steps/mu_mean" not in stats
