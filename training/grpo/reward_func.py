"""Reward function: grade rollouts, form groups, and score the batch over all ranks."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from accelerate.utils import gather_object

from stepgrpo_core import Group, Reward, count_steps
from training.grading import Grades, Verdict
from training.grpo.completions import CompletionLog, kept_completion, kept_groups
from training.grpo.metrics import group_statistics, rollout_statistics, verdict_statistics
from training.rollouts.batch import Rollout

__all__ = ["RewardFunction", "groups_of"]


class RewardFunction:
    """A reward of the core as a reward function of TRL.

    TRL passes the completions of this rank. Some rewards need the whole batch, so groups are
    gathered first and every rank scores the groups of all ranks.
    """

    def __init__(
        self,
        name: str,
        reward: Reward,
        grader: Grades,
        markers: Sequence[str],
        log: CompletionLog | None = None,
    ) -> None:
        self.__name__ = name  # TRL logs this name
        self._reward, self._grader, self._markers, self._log = reward, grader, markers, log
        self._worthless = 0  # calls in a row whose rewards were all 0

    def __call__(
        self,
        *,
        answer: Sequence[str],
        rollout: Sequence[Rollout],
        text: Sequence[str],
        group_size: Sequence[int],
        log_metric: Callable[[str, float], None],
        **columns: Any,
    ) -> list[float | None]:
        """Return one reward per completion, in order; None where grading failed.

        `text` is graded, not TRL's completions: these lack the end of the thinking if it is a
        special token.

        TRL gives a completion without a reward the advantage 0 and excludes it from its group's
        mean. That is better than a wrong answer, so the grader scores as many as possible; the
        metrics `grading/unscored_share` and `grading/timeout_share` show the rest.
        """
        questions = [_question(prompt) for prompt in columns["prompts"]]
        # All prompts have the same chat template, so all or none open the thinking.
        is_open = rollout[0].thinking_open
        verdicts = self._grader.grade(text, answer, questions=questions, thinking_open=is_open)
        groups = groups_of(rollout, text, verdicts, group_size[0], self._markers)
        metrics = rollout_statistics(rollout) | group_statistics(groups)
        for name, value in (metrics | verdict_statistics(verdicts)).items():
            log_metric(name, value)
        everywhere: list[Group] = gather_object(groups)
        # Every rank has the same number of groups, in the order of ranks.
        first = len(groups) * _rank_of(groups, everywhere)
        scored = self._reward(everywhere)
        worthless = not any(value for group in scored for value in group)
        self._worthless = self._worthless + 1 if worthless else 0
        if first == 0 and worthless:
            _tell_worthless(self._worthless, verdicts)
        rewards = [value for group in scored[first : first + len(groups)] for value in group]
        if first == 0 and self._log:
            steps = [k for group in groups for k in group.steps]
            rows = zip(text, rollout, verdicts, steps, rewards, strict=True)
            completions = [kept_completion(*row) for row in rows]
            step = columns["trainer_state"].global_step + 1
            self._log.keep(kept_groups(step, questions, answer, completions, group_size[0]))
        return rewards


def _tell_worthless(batches: int, verdicts: Sequence[Verdict]) -> None:
    """Say that nothing was paid, and why, in the 1st, 2nd, 4th, 8th ... such batch in a row."""
    if batches.bit_count() == 1:
        counts = Counter(each.reason for each in verdicts).most_common()
        reasons = ", ".join(f"{reason}: {count}" for reason, count in counts)
        print(
            f"every reward of {batches} batches in a row was 0 ({reasons}): they teach nothing; "
            "compare what the completions box with the answers of the data",
            flush=True,
        )


def _question(prompt: str | Sequence[Mapping[str, str]]) -> str:
    """Return the text of a prompt in TRL's formats; of messages the last one."""
    return prompt if isinstance(prompt, str) else prompt[-1]["content"]


def groups_of(
    rollouts: Sequence[Rollout],
    texts: Sequence[str],
    verdicts: Sequence[Verdict],
    size: int,
    markers: Sequence[str],
) -> list[Group]:
    """Return consecutive completions, `size` of each prompt, as groups."""
    return [
        Group(
            correct=[each.correct for each in verdicts[start : start + size]],
            formatted=[each.formatted for each in verdicts[start : start + size]],
            steps=[count_steps(text, markers) for text in texts[start : start + size]],
            tokens=[len(each.ids) for each in rollouts[start : start + size]],
            finished=[each.ended for each in rollouts[start : start + size]],
        )
        for start in range(0, len(rollouts), size)
    ]


def _rank_of(groups: Sequence[Group], everywhere: Sequence[Group]) -> int:
    from accelerate import PartialState  # noqa: PLC0415 - initialized when training starts

    return PartialState().process_index if len(everywhere) > len(groups) else 0
