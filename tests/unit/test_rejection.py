"""Rejection sampling: what is kept, what is counted, and that a kill loses nothing else."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from stepgrpo_core import ExitReason, Outcome
from tests.support.core.families import family_tokenizer
from training.config.schema import InvalidConfig, RunConfig, load_config
from training.data.dataset import Row
from training.grading import Grader, Verdict
from training.rollouts.batch import Request, Rollout
from training.rollouts.scripted_engine import ScriptedEngine, Stream
from training.rollouts.vllm_engine import format_of
from training.sft.rejection_sampling import Sampler, sample_in_chunks, sampling_settings, select
from training.sft.samples import (
    PromptSamples,
    Selected,
    append_samples,
    counters_of,
    labeled_rows,
    open_samples,
    read_samples,
    report_of,
    samples_file,
)
from training.sft.train import sft_arguments

RIGHT = Verdict(True, True, "exact")
WRONG = Verdict(False, True, "different")
UNSCORED = Verdict(None, True, "timeout")
ON_CPU = ("sft.trl.bf16=false", "sft.trl.gradient_checkpointing=false", "trl.bf16=false")
SETTINGS = {"seed": 0, "exit": {"markers": ["Wait"]}}


def rollout(*ids: int, reason: ExitReason = ExitReason.NATURAL, ended: bool = True) -> Rollout:
    return Rollout(
        prompt_ids=(1, 2),
        ids=ids,
        logprobs=(0.0,) * len(ids),
        injected=(False,) * len(ids),
        outcome=Outcome(reason, 1, 1, 0, 0, (), None),
        thinking_open=False,
        ended=ended,
        probe_tokens=3,
        discarded_tokens=2,
    )


def sampled(row: int, *kept: Selected, **changes: int) -> PromptSamples:
    counts = {"samples": 4, "correct": len(kept), "unscored": 0, "unfinished": 0, "tokens": 40}
    counts |= {"probe_tokens": 6, "discarded_tokens": 2} | changes
    return PromptSamples(row, (7, 8, row), kept, **counts)


def config(*overrides: str) -> RunConfig:
    return load_config(["demo", "methods/deer-sft"], ["output=/none", *ON_CPU, *overrides])


def test_the_shortest_correct_completions_are_kept_shortest_first() -> None:
    made = [rollout(1, 2, 3), rollout(4), rollout(5, 6), rollout(7, 8, 9, 10)]
    verdicts = [RIGHT, WRONG, RIGHT, RIGHT]
    assert select(made, verdicts, 2) == [made[2], made[0]]
    assert select(made, verdicts, 9) == [made[2], made[0], made[3]]


def test_of_equal_lengths_the_first_sample_wins_and_equal_completions_count_once() -> None:
    made = [rollout(5, 6), rollout(3, 4), rollout(5, 6)]
    assert [each.ids for each in select(made, [RIGHT] * 3, 1)] == [(5, 6)]
    assert [each.ids for each in select(made, [RIGHT] * 3, 3)] == [(5, 6), (3, 4)]


def test_what_was_cut_or_could_not_be_scored_is_never_kept() -> None:
    made = [rollout(1, ended=False), rollout(2), rollout(3)]
    assert select(made, [RIGHT, UNSCORED, WRONG], 3) == []


@pytest.mark.parametrize("reason", ExitReason)
def test_only_thinking_that_an_exit_or_the_model_closed_is_kept(reason: ExitReason) -> None:
    open_ended = {"eos_in_thinking", "client", "length", "none"}
    made = [rollout(1, reason=reason)]
    assert select(made, [RIGHT], 1) == ([] if reason in open_ended else made)


@dataclasses.dataclass
class Script:
    """Plays texts in the order in which they are asked for; probes are sure of the answer 9."""

    tokenizer: Any
    texts: Sequence[str]
    requests: list[Request] = dataclasses.field(default_factory=list)

    def __call__(self, request: Request) -> Stream:
        probe = request.sampling.temperature == 0
        if not probe:
            self.requests.append(request)
        text = "{9}</think>" if probe else self.texts[len(self.requests) - 1]
        end = [] if probe else [self.tokenizer.eos_token_id]
        return Stream((*self.tokenizer.encode(text, add_special_tokens=False), *end))


def test_prompts_are_sampled_with_exits_graded_and_selected_from() -> None:
    settings = config(
        "sft.samples=3",
        "sft.keep=2",
        "trl.temperature=0.7",
        "trl.max_completion_length=60",
        "rollout.kind=plain",
        "rollout.exit.min_interval=0",
        "rollout.exit.answer_reserve=20",
    )
    tokenizer = AutoTokenizer.from_pretrained(settings.model.name)
    answer = "The final answer is \\boxed{9}."
    natural, unboxed = f"<think>\n5+4=9\n</think>\n\n{answer}", "<think>\n</think>\n\n9"
    exited, endless = "<think>\n5+4=9\nWait, 5+4=9\nWait", "<think>\n" + "5" * 80
    script = Script(tokenizer, [exited, natural, unboxed, unboxed, unboxed, endless, answer])
    row = Row("Compute 5+4.", "9", "test", 1)
    with Grader(workers=1) as grader:
        form = format_of(tokenizer, settings.rollout.exit.closing_text)
        sample = Sampler(settings, tokenizer, form, ScriptedEngine(script), grader)
        first, second = sample({4: row, 7: row})
    assert (first.row, first.samples, first.correct, first.unfinished) == (4, 3, 2, 0)
    assert (second.row, second.samples, second.correct, second.unfinished) == (7, 3, 0, 1)
    assert second.kept == ()
    assert tokenizer.decode(first.prompt_ids).count("Compute 5+4.") == 1
    assert [tokenizer.decode(each.ids) for each in first.kept] == [
        natural + tokenizer.eos_token,
        f"<think>\n5+4=9\n\n</think>\n\n{answer}{tokenizer.eos_token}",
    ]
    injected = [tokenizer.decode(each.ids[slice(*each.injected)]) for each in first.kept]
    assert injected == ["", "\n</think>\n\n"]
    assert first.probe_tokens > 0
    assert first.tokens > sum(len(each.ids) for each in first.kept)
    seeds = [each.sampling.seed for each in script.requests]
    assert len(set(seeds)) == 6  # each completion its own
    assert seeds[6] == seeds[0]  # and its answer the same
    assert {each.sampling.temperature for each in script.requests} == {0.7}


def test_answers_are_found_also_where_a_special_token_ends_the_thinking() -> None:
    settings = config("sft.samples=2", "sft.keep=1", "trl.max_completion_length=60")
    tokenizer = family_tokenizer("gemma4")
    end = tokenizer.encode("<turn|>")
    right, wrong = (f"<|channel>\\boxed{{8}} or 9?<channel|>\\boxed{{{box}}}" for box in "98")

    def model(request: Request) -> Stream:
        return Stream((*tokenizer.encode(right if request.id.startswith("0") else wrong), *end))

    with Grader(workers=1) as grader:
        form = format_of(tokenizer, settings.rollout.exit.closing_text)
        sample = Sampler(settings, tokenizer, form, ScriptedEngine(model), grader)
        (found,) = sample({0: Row("Compute 5+4.", "9", "test", 1)})
    assert (found.correct, found.unscored) == (1, 0)
    assert tokenizer.decode(found.kept[0].ids) == f"{right}<turn|>"


def test_injected_tokens_carry_no_loss_when_they_are_not_trained_on() -> None:
    kept = Selected((9, 5, 6, 3), (1, 3))
    (row,) = labeled_rows([sampled(0, kept)], train_injected=False, max_rows=None, seed=0)
    assert row == {
        "input_ids": [7, 8, 0, 9, 5, 6, 3],
        "labels": [-100, -100, -100, 9, -100, -100, 3],
    }


def test_labels_mask_the_prompt_and_nothing_else() -> None:
    samples = [sampled(0, Selected((9, 5, 3), (1, 2)), Selected((9, 9, 5, 3), (0, 0))), sampled(1)]
    rows = labeled_rows(samples, train_injected=True, max_rows=None, seed=0)
    assert [row["input_ids"] for row in rows] == [[7, 8, 0, 9, 5, 3], [7, 8, 0, 9, 9, 5, 3]]
    assert [row["labels"] for row in rows] == [
        [-100, -100, -100, 9, 5, 3],
        [-100, -100, -100, 9, 9, 5, 3],
    ]


def test_max_rows_draws_from_all_the_data_by_the_seed() -> None:
    samples = [sampled(row, Selected((row,), (0, 0))) for row in range(100)]

    def drawn(seed: int) -> list[int]:
        rows = labeled_rows(samples, train_injected=True, max_rows=10, seed=seed)
        return [row["labels"][-1] for row in rows]

    assert drawn(0) == drawn(0) != drawn(1)
    assert len(set(drawn(0))) == 10
    assert drawn(0) == sorted(drawn(0))
    assert max(drawn(0)) > 50


def test_results_come_back_from_the_file_in_the_order_of_the_data(tmp_path: Path) -> None:
    first, second = samples_file(tmp_path, 0, 2), samples_file(tmp_path, 1, 2)
    assert samples_file(tmp_path, 0, 1).name == "samples.jsonl"
    results = [sampled(row, Selected((row, 3), (0, 1))) for row in range(4)]
    for path, mine in ((first, results[::2]), (second, results[1::2])):
        open_samples(path, SETTINGS)
        append_samples(path, mine)
    assert read_samples(tmp_path, SETTINGS) == results


@pytest.mark.parametrize("lost", range(1, 200, 20))
def test_of_a_file_cut_anywhere_only_the_torn_line_is_lost(tmp_path: Path, lost: int) -> None:
    path = samples_file(tmp_path, 0, 1)
    open_samples(path, SETTINGS)
    append_samples(path, results := [sampled(row) for row in range(3)])
    whole = path.read_bytes()
    path.write_bytes(whole[:-lost])
    left = 3 - whole[-lost:].count(b"\n")
    assert read_samples(tmp_path, SETTINGS) == results[:left]
    open_samples(path, SETTINGS)
    append_samples(path, results[left:])
    assert path.read_bytes() == whole


def test_a_torn_first_line_is_written_anew(tmp_path: Path) -> None:
    path = samples_file(tmp_path, 0, 1)
    path.write_bytes(b'{"seed":')
    assert read_samples(tmp_path, SETTINGS) == []
    open_samples(path, SETTINGS)
    open_samples(path, SETTINGS)
    assert path.read_bytes() == b'{"seed":0,"exit":{"markers":["Wait"]}}\n'


def test_samples_of_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    open_samples(samples_file(tmp_path, 0, 1), SETTINGS)
    with pytest.raises(ValueError, match="sampled with seed=0, not 1; set it back, delete"):
        read_samples(tmp_path, SETTINGS | {"seed": 1})


@pytest.mark.parametrize("line", [b"{", b"{}", b"[]", b'{"row": 0, "prompt_ids": 5, "kept": []}'])
def test_a_damaged_line_is_named_with_file_and_number(tmp_path: Path, line: bytes) -> None:
    path = samples_file(tmp_path, 0, 1)
    open_samples(path, SETTINGS)
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(ValueError, match=r"samples\.jsonl:2: .*; delete the line"):
        read_samples(tmp_path, SETTINGS)


def test_settings_that_change_samples_are_part_of_the_file_and_others_are_not() -> None:
    for override in (
        "seed=1",
        "sft.samples=3",
        "sft.keep=2",
        "trl.temperature=0.5",
        "rollout.exit.threshold=0.5",
        "data.prompt_suffix=x",
    ):
        assert sampling_settings(config(override)) != sampling_settings(config())
    for override in ("sft.max_rows=5", "sft.trl.learning_rate=1", "trl.max_steps=7"):
        assert sampling_settings(config(override)) == sampling_settings(config())


def run_chunks(path: Path, places: Sequence[int], *, stop_after: int = 99) -> list[list[int]]:
    asked: list[list[int]] = []

    def sample(rows: Mapping[int, Row]) -> list[PromptSamples]:
        asked.append(list(rows))
        return [sampled(place) for place in rows]

    open_samples(path, SETTINGS)
    rows = {place: Row(str(place), "", "test", place + 1) for place in places}
    sample_in_chunks(rows, 2, sample, path, lambda: len(asked) >= stop_after)
    return asked


def test_a_stopped_run_goes_on_with_the_next_chunk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = samples_file(tmp_path, 0, 1)
    assert run_chunks(path, range(5), stop_after=2) == [[0, 1], [2, 3]]
    done = {each.row for each in read_samples(tmp_path, SETTINGS)}
    assert run_chunks(path, [row for row in range(5) if row not in done]) == [[4]]
    assert read_samples(tmp_path, SETTINGS) == [sampled(row) for row in range(5)]
    assert "sampled 4 of 5 prompts, 0 completions kept" in capsys.readouterr().out


def test_the_report_leaves_unscored_completions_out_of_the_share() -> None:
    samples = [
        sampled(0, Selected((1, 2), (0, 0)), Selected((1, 2, 3, 4), (0, 0)), unscored=1),
        sampled(1, unfinished=2, unscored=1),
    ]
    report = report_of(samples)
    assert report.correct_share == pytest.approx(2 / 6)
    assert (report.kept, report.kept_mean_tokens, report.mean_tokens) == (2, 3, 10)
    assert (report.unscored, report.unfinished, report.without_correct) == (2, 2, 1)
    assert report.lines() == [
        "2 prompts, 8 completions: 33.3% of the scored are correct, 2 unscored, 2 unfinished",
        "kept 2 completions of 3 tokens on average; all have 10",
        "1 prompts have no correct completion",
    ]
    assert counters_of(samples).completion_tokens == 80


def test_a_report_of_nothing_scored_has_no_share_to_divide_by() -> None:
    report = report_of([sampled(0, unscored=4)])
    assert (report.correct_share, report.kept, report.without_correct) == (0, 0, 1)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sft.trl.max_length=639", r"sft\.trl\.max_length=639 .*at least 640"),
        ("sft.trl.completion_only_loss=false", r"sft\.trl\.completion_only_loss=False .*leave"),
        ("sft.trl.save_total_limit=1", r"sft\.trl\.save_total_limit=1 .*2 or more"),
    ],
)
def test_fine_tuning_that_would_spoil_the_samples_is_refused(override: str, message: str) -> None:
    with pytest.raises(InvalidConfig, match=message):
        sft_arguments(config(override))


def test_the_shipped_preset_is_accepted_on_the_demo() -> None:
    args = sft_arguments(config("sft.trl.max_length=640"))
    assert (args.completion_only_loss, args.max_length) == (True, 640)
