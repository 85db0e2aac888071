"""The page of a run, and the comparison of two runs or evaluations."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stepgrpo_core import ExitReason
from stepgrpo_core.rewards import Accuracy
from tests.support.training.records import record
from tests.support.training.rewarding import MARKERS
from tests.support.training.rollouts import rollout
from training.cli import build_parser
from training.evaluation.records import Settings as RecordSettings
from training.evaluation.records import append_questions, open_records, records_file
from training.grading import Grader
from training.grpo.completions import FILE, CompletionLog, KeptGroup, forget_after, read_groups
from training.grpo.reward_func import RewardFunction
from training.rollouts.batch import Rollout


def cut(length: int, at: int) -> Rollout:
    """A rollout whose thinking an exit has closed after `at` tokens."""
    made = rollout(ExitReason.CONFIDENT, length, (0.5, 0.97))
    return dataclasses.replace(made, injected=tuple(place == at for place in range(length)))


def train(
    run: Path,
    step: int,
    boxes: Sequence[str],
    *,
    kept: int = 9,
    prompt: str = "1+1?",
) -> None:
    """Score one generation of groups of two, whose golds are all 2, as the trainer does."""
    with Grader() as grader:
        log = CompletionLog(run, kept)
        RewardFunction("accuracy", Accuracy(), grader, MARKERS, log)(
            answer=["2"] * len(boxes),
            rollout=[
                cut(10 + 10 * step, 4) if place % 2 else rollout(ExitReason.NATURAL, 40)
                for place in range(len(boxes))
            ],
            text=[f"<think>one Wait, two</think>\\boxed{{{box}}}" for box in boxes],
            group_size=[2] * len(boxes),
            log_metric=lambda _name, _value: None,
            prompts=[prompt] * len(boxes),
            trainer_state=SimpleNamespace(global_step=step - 1),
        )


def logged(run: Path, steps: int) -> None:
    names = ("reward", "grading/accuracy", "length/mean", "exits/natural", "exits/confident", "kl")
    rows = [{"step": step, **dict.fromkeys(names, step / 10)} for step in range(1, steps + 1)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def command(*arguments: str | Path) -> None:
    args = build_parser().parse_args([str(each) for each in arguments])
    args.run(args)


def test_a_generations_first_groups_are_kept_with_cut_reward_and_verdict(tmp_path: Path) -> None:
    train(tmp_path, 1, ["2", "3", "2", "2", "5", "5"], kept=2)
    first, second = read_groups(tmp_path)
    assert (first.step, first.place, first.prompt, first.gold) == (1, 0, "1+1?", "2")
    whole, truncated = first.completions
    assert (whole.reward, whole.correct, whole.verdict, whole.cut) == (1.0, True, "exact", None)
    assert (truncated.reward, truncated.answer, truncated.cut) == (0.0, "3", 4)
    assert (truncated.steps, truncated.exit) == (2, "confident")
    assert truncated.confidences == (0.5, 0.97)
    assert [each.correct for each in second.completions] == [True, True]


def test_nothing_is_written_where_nothing_is_kept(tmp_path: Path) -> None:
    train(tmp_path, 1, ["2", "2"], kept=0)
    assert list(tmp_path.iterdir()) == []


def test_a_resumed_run_forgets_the_steps_that_it_makes_again(tmp_path: Path) -> None:
    forget_after(tmp_path, 0)  # a new run: there is nothing
    train(tmp_path, 1, ["2", "2"])
    train(tmp_path, 2, ["3", "3"])
    with (tmp_path / FILE).open("a") as file:
        file.write('{"step": 2, "pla')  # the process died here
    forget_after(tmp_path, 1)
    train(tmp_path, 2, ["2", "3"])
    answers = [[each.answer for each in group.completions] for group in read_groups(tmp_path)]
    assert answers == [["2", "2"], ["2", "3"]]
    forget_after(tmp_path, 0)
    assert read_groups(tmp_path) == []


def test_the_page_has_curves_and_groups_that_a_filter_shows(tmp_path: Path) -> None:
    logged(tmp_path, 3)
    train(tmp_path, 1, ["2", "2", "3", "3", "2", "3"])
    train(tmp_path, 2, ["<script>", "2"], prompt="<b>1+1</b>?")
    command("show", tmp_path)
    page = (tmp_path / "show.html").read_text()
    assert "data:image/png;base64," in page
    labels = ("all groups (4)", "all wrong (1)", "some right (2)", "all right (1)")
    assert all(label in page for label in labels)
    assert page.count('class="group wrong"') == 1
    assert page.count('class="group mixed"') == 2
    assert "#show-wrong:checked ~ main .group:not(.wrong) { display: none }" in page
    assert "wrong (different), reward 0, k 2, 20 tokens, cut after 4" in page
    assert "Probes: 0.500, 0.970" in page
    assert "<script>" not in page
    assert "<b>" not in page


def test_a_run_that_has_not_finished_is_shown_from_its_newest_checkpoint(tmp_path: Path) -> None:
    for step in (8, 10):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        history = [{"step": each, "reward": 0.5} for each in range(1, step + 1)]
        (folder / "trainer_state.json").write_text(json.dumps({"log_history": history}))
    command("show", tmp_path, "--page", tmp_path / "page.html")
    assert "data:image/png" in (tmp_path / "page.html").read_text()


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no metrics and no completions; name the output folder"):
        command("show", tmp_path)


def evaluated(output: Path, contender: str, **changes: Any) -> Path:
    """An evaluation's folder of a contender on ten questions; returns the contender's folder."""
    questions = changes.pop("questions", "cd34")
    settings = SimpleNamespace(as_json=lambda: settings_of(contender, questions))
    path = records_file(output, contender, "gsm8k")
    made = {"versions": {}, "hardware": "cpu", "dtype": "float32", "commit": "c0"}
    typed: RecordSettings = settings  # type: ignore[assignment]
    open_records(path, typed, made)
    append_questions(path, [[record(each, **changes)] for each in range(10)])
    return path.parent


def settings_of(contender: str, questions: str) -> dict[str, Any]:
    sampling = {"max_tokens": 900, "temperature": 0.6, "top_p": 1.0, "top_k": 0}
    return {
        "contender": contender,
        "model": contender,
        "weights": "ab12",
        "exit": {"policy": "none"},
        "task": "gsm8k",
        "draws": {"samples": 1, "sampling": sampling},
        "dtype": "float32",
        "seed": 0,
        "questions": questions,
        "limit": None,
    }


def results(output: Path) -> Any:
    assert (output / "tradeoff.png").read_bytes()[1:4] == b"PNG"
    assert "Compression" in (output / "results.md").read_text()
    return json.loads((output / "results.json").read_text())["results"]


def test_two_evaluations_are_compared_question_by_question(tmp_path: Path) -> None:
    first = evaluated(tmp_path / "a", "base", tokens=200)
    second = evaluated(tmp_path / "b", "base", tokens=100)
    command("compare", tmp_path / "a", second, "--output", tmp_path / "out")
    versus = results(tmp_path / "out")["gsm8k"][str(second)]["versus"]
    assert versus["tokens"] == {"value": -100.0, "low": -100.0, "high": -100.0}
    assert versus["ratio_of_means"]["value"] == 0.5
    assert versus["accuracy"]["value"] == 0
    assert first.is_dir()


def test_other_questions_and_several_contenders_are_refused(tmp_path: Path) -> None:
    first = evaluated(tmp_path / "a", "base")
    other = evaluated(tmp_path / "b", "base", questions="ffff")
    out = ("--output", tmp_path / "out")
    with pytest.raises(ValueError, match="answered other questions of gsm8k"):
        command("compare", first, other, *out)
    evaluated(tmp_path / "a", "trained")
    with pytest.raises(ValueError, match=r"several contenders; name one of .*base.*trained"):
        command("compare", tmp_path / "a", other, *out)
    with pytest.raises(ValueError, match="compared with itself"):
        command("compare", first, first, *out)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no records"):
        command("compare", first, tmp_path / "empty", *out)


def test_two_runs_are_compared_on_the_prompts_of_both(tmp_path: Path) -> None:
    for name, boxes in (("a", "2323"), ("b", "2222")):
        (tmp_path / name).mkdir()
        for step in (1, 2):
            train(tmp_path / name, step, boxes)
    train(tmp_path / "b", 3, "22")
    command("compare", tmp_path / "a", tmp_path / "b", "--output", tmp_path / "out")
    found = results(tmp_path / "out")["training rollouts"][str(tmp_path / "b")]
    assert found["questions"] == 4
    assert found["versus"]["accuracy"]["value"] == 0.5
    (tmp_path / "c").mkdir()
    train(tmp_path / "c", 1, "22", prompt="other")
    with pytest.raises(ValueError, match="no prompt at the same step"):
        command("compare", tmp_path / "a", tmp_path / "c", "--output", tmp_path / "out")
    evaluation = evaluated(tmp_path / "e", "base")
    with pytest.raises(ValueError, match="one is a run, and the other is not"):
        command("compare", tmp_path / "a", evaluation, "--output", tmp_path / "out")


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    train(tmp_path, 1, ["2", "2"])
    with (tmp_path / FILE).open("a") as file:
        file.write('{"step": 1}\n')
    with pytest.raises(ValueError, match=rf"{FILE}:3: .*; delete the line"):
        read_groups(tmp_path)


def test_kept_groups_read_back_as_they_were(tmp_path: Path) -> None:
    train(tmp_path, 1, ["2", "3"])
    (group,) = read_groups(tmp_path)
    assert isinstance(group, KeptGroup)
    CompletionLog(tmp_path, 1).keep([dataclasses.replace(group, step=5)])
    assert read_groups(tmp_path) == [group, dataclasses.replace(group, step=5)]
