"""The demo world: disjoint splits, true arithmetic, and a tokenizer that behaves as Qwen's."""

import random
import re
import statistics

import pytest

from stepgrpo_core import LEXICONS, count_steps, final_answer
from training.demo.pretrain import BaseRecipe, TraceBatches
from training.demo.tokenizer import build_tokenizer
from training.demo.world import (
    JUMP,
    LEVELS,
    Problem,
    sample_problem,
    sample_problems,
    sample_trace,
)

TOKENIZER = build_tokenizer()


def traces(count: int, seed: int = 0, *, hasty: bool = False) -> list[tuple[Problem, str]]:
    rng = random.Random(seed)
    problems = [sample_problem(rng, "train") for _ in range(count)]
    return [(p, text_of(p, rng, hasty)) for p in problems]


def text_of(problem: Problem, rng: random.Random, hasty: bool) -> str:
    return "".join(piece.text for piece in sample_trace(problem, rng, hasty=hasty))


def test_the_answer_is_the_value_of_the_expression() -> None:
    for problem in sample_problems(0, "test", 200):
        assert re.fullmatch(r"\d{2}([+-]\d){2,8}", problem.expression)
        assert problem.answer == sum(map(int, re.findall(r"[+-]?\d+", problem.expression)))
        assert problem.expression in problem.prompt


def test_no_problem_is_in_two_splits() -> None:
    splits = {name: set(sample_problems(0, name, 500)) for name in ("train", "validation", "test")}
    assert all(each.split == name for name, found in splits.items() for each in found)
    assert not splits["train"] & splits["test"]
    assert not splits["validation"] & splits["test"]


def test_sampling_repeats_by_seed_and_keeps_to_its_level() -> None:
    assert sample_problems(3, "test", 20) == sample_problems(3, "test", 20)
    assert sample_problems(3, "test", 20) != sample_problems(4, "test", 20)
    for level, (low, high) in LEVELS.items():
        found = sample_problems(0, "test", 30, level)
        assert all(low <= len(p.operations) <= high and p.level == level for p in found)


def test_traces_overthink_slip_and_mostly_end_right() -> None:
    made = traces(2000)
    steps = statistics.fmean(count_steps(text) for _, text in made)
    right = statistics.fmean(final_answer(text) == str(p.answer) for p, text in made)
    assert steps > 3.5
    assert 0.7 < right < 0.97  # careless re-checks talk right answers away


def test_hasty_passes_take_several_operations_a_line_and_only_where_they_are_wanted() -> None:
    def longest(text: str) -> int:
        return max((len(ops) // 2 for ops in re.findall(r"\d+((?:[+-]\d)+)=", text)), default=1)

    assert max(longest(text) for _, text in traces(300)) == 1
    hasty = [longest(text) for _, text in traces(300, hasty=True)]
    assert max(hasty) == JUMP
    assert 0.5 < statistics.fmean(each > 1 for each in hasty) < 0.9


def test_traces_close_in_the_two_forms_of_an_exit_and_early_ones_are_true() -> None:
    for problem, text in traces(300):
        assert re.search(
            r"(\n\*\*Final Answer\*\*\n\\boxed\{\d+\})?\n</think>\n\nThe final answer is "
            r"\\boxed\{\d+\}\.$|^<think>\n\n</think>",
            text,
        )
        if text.startswith("<think>\n\n</think>"):
            assert final_answer(text) == str(problem.answer)


def test_control_tokens_are_single_added_and_not_special() -> None:
    added = TOKENIZER.added_tokens_decoder
    for text in ("<think>", "</think>"):
        (token,) = TOKENIZER.encode(text)
        assert not added[token].special
        assert TOKENIZER.decode([token], skip_special_tokens=True) == text
    for text in ("<|im_start|>", "<|im_end|>"):
        (token,) = TOKENIZER.encode(text)
        assert added[token].special


@pytest.mark.parametrize("word", LEXICONS["paper"])
def test_markers_are_single_tokens_with_and_without_a_space(word: str) -> None:
    assert [len(TOKENIZER.encode(text)) for text in (word, f" {word}")] == [1, 1]
    assert TOKENIZER.encode(word) != TOKENIZER.encode(f" {word}")


@pytest.mark.parametrize(
    "text", ["héllo 等等 \U0001f914", "a\r\n\tb  c", "12+3=15\n\nWait, <think>"]
)
def test_any_text_round_trips(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


def test_the_chat_template_has_qwens_form() -> None:
    message = [{"role": "user", "content": "hi"}]
    options = {"tokenize": False, "add_generation_prompt": True}
    prompt = TOKENIZER.apply_chat_template(message, **options)
    assert prompt == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    off = TOKENIZER.apply_chat_template(message, enable_thinking=False, **options)
    assert off == prompt + "<think>\n\n</think>\n\n"


def test_batches_are_a_function_of_recipe_stage_and_index() -> None:
    recipe = BaseRecipe(steps=4, batch_size=4)
    first, *others = (TraceBatches(recipe, stage, TOKENIZER)[3] for stage in recipe.stages)
    again = TraceBatches(recipe, recipe.stages[0], TOKENIZER)[3]
    drawn = [each["input_ids"].tolist() for each in (first, *others)]
    assert drawn[0] != drawn[1] != drawn[2] != drawn[0]
    assert (first["input_ids"] == again["input_ids"]).all()
    assert first["input_ids"].shape == first["labels"].shape
    kept = first["labels"] != -100
    assert (first["labels"][kept] == first["input_ids"][kept]).all()
    assert kept.any()
    assert not kept[:, :8].any()  # prompts carry no loss
