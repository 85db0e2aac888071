"""Families of models, on tokenizers with their own added tokens, built here."""

import dataclasses
from typing import Any

import pytest
from tokenizers import AddedToken

from stepgrpo_core import (
    ExitController,
    ExitReason,
    ExitSettings,
    FinishThinking,
    InvalidSetting,
    ThinkingFormat,
)
from stepgrpo_core.families.table import FAMILIES, Family, apply_family, read_families
from stepgrpo_core.families.thinking import (
    family_of,
    opens_in_thinking,
    thinking_of,
    tokenizer_format,
)
from tests.support.core.families import (
    ADDED,
    CHATML,
    LIMITED,
    OPENING,
    PLAIN,
    QWEN,
    Driver,
    family_tokenizer,
    tokenizer_of,
)
from training.rollouts.vllm_engine import format_of


def driver(
    name: str, settings: ExitSettings, *, skip_special: bool = True, opened: bool = False
) -> Driver:
    tokenizer, family = family_tokenizer(name), FAMILIES[name]
    settings = apply_family(settings, family)
    thinking = thinking_of(tokenizer, family, settings.closing_text)
    controller = ExitController(settings, thinking, max_tokens=4000, thinking_open=opened)
    return Driver(tokenizer, controller, skip_special=skip_special)


def test_every_family_is_tested() -> None:
    assert set(ADDED) == set(FAMILIES)
    assert {name: row.name for name, row in FAMILIES.items()} == {name: name for name in FAMILIES}


@pytest.mark.parametrize("name", FAMILIES)
def test_it_is_recognized_by_its_own_tokens(name: str) -> None:
    tokenizer = family_tokenizer(name)
    assert family_of(tokenizer) == FAMILIES[name]
    assert family_of(tokenizer, name) == FAMILIES[name]
    form = format_of(tokenizer, ExitSettings().closing_text)  # the trainer's way
    assert form.family == FAMILIES[name]
    assert form.thinking == thinking_of(tokenizer, FAMILIES[name], FAMILIES[name].closing)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_prompt_is_opened_where_the_template_does(name: str) -> None:
    tokenizer, family = family_tokenizer(name), FAMILIES[name]
    thinking = thinking_of(tokenizer, family, family.closing)
    for prompt, opened in (
        (family.start, True),
        (f"{family.start}\n", True),
        ("so", False),
        (f"{family.start}so", False),
        (f"{family.start}{family.end}\n", False),
        (family.start[1:], False),
    ):
        ids = tokenizer.encode(f"Hello{prompt}", add_special_tokens=False)
        assert opens_in_thinking(tokenizer, thinking, ids) is opened, prompt
    assert not opens_in_thinking(tokenizer, thinking, [])


@pytest.mark.parametrize("skip_special", [True, False])
@pytest.mark.parametrize("name", FAMILIES)
def test_thinking_that_ends_by_itself_is_counted(name: str, skip_special: bool) -> None:
    family = FAMILIES[name]
    thought = "47+8=55\nWait, again.\n"
    for opened in (False, True):
        played = driver(name, ExitSettings(), skip_special=skip_special, opened=opened)
        text = f"{thought}{family.end}The answer is 55."
        played.play(text if opened else f"{family.start}{text}")
        outcome = played.finish()
        assert outcome.reason is ExitReason.NATURAL
        assert outcome.steps == 2
        assert outcome.reasoning_tokens == len(thought)  # a byte each
        assert played.emitted == played.played


@pytest.mark.parametrize("skip_special", [True, False])
@pytest.mark.parametrize("name", FAMILIES)
def test_an_exit_writes_what_the_family_would(name: str, skip_special: bool) -> None:
    family, tokenizer = FAMILIES[name], family_tokenizer(name)
    played = driver(name, LIMITED, skip_special=skip_special)
    played.play(f"{family.start}47+8=55\nWait, let me check again. Wait")
    assert played.close is not None
    assert played.close.reason is ExitReason.BUDGET
    played.play("The answer is 55.")
    outcome = played.finish()
    written = f"{family.start}47+8=55\n{family.closing}The answer is 55."
    assert tokenizer.decode(played.emitted, skip_special_tokens=False) == written
    assert tokenizer.encode(written, add_special_tokens=False) == played.emitted
    before_end = family.closing.partition(family.end)[0]
    assert outcome.reasoning_tokens == len("47+8=55\n") + len(before_end)
    assert outcome.steps == 1


@pytest.mark.parametrize("name", FAMILIES)
def test_an_answer_without_thinking_is_left_alone(name: str) -> None:
    played = driver(name, LIMITED)
    played.play("The answer is 55. Wait, really. Wait")
    assert played.close is None
    assert played.finish().reason is ExitReason.NONE


def test_of_the_channels_only_analysis_is_thinking() -> None:
    for other in ("final", "commentary", "anal"):
        played = driver("gpt-oss", LIMITED)
        played.play(f"<|channel|>{other}<|message|>55. Wait, really. Wait<|end|>")
        assert played.close is None
        outcome = played.finish()
        assert (outcome.reason, outcome.reasoning_tokens) == (ExitReason.NONE, 0)
    again = driver("gpt-oss", LIMITED)  # a beginning that breaks off, then the start
    again.play("<|channel|><|channel|>analysis<|message|>1\nWait, no")
    assert again.close is not None


def test_what_goes_on_with_a_start_of_several_tokens_is_no_answer() -> None:
    tokenizer = family_tokenizer("gpt-oss")
    ids = tokenizer.encode("<|channel|>analysis", add_special_tokens=False)
    final = tokenizer.encode("final", add_special_tokens=False)
    played = driver("gpt-oss", LIMITED)
    assert not played.controller.would_answer(ids[0], "")
    played.play("<|channel|>")
    assert not played.controller.would_answer(ids[1], "a")
    assert played.controller.would_answer(final[0], "f")


def test_a_grammar_starts_where_the_familys_answer_does() -> None:
    for name in ("gpt-oss", "glm"):
        thinking = thinking_of(family_tokenizer(name), FAMILIES[name], FAMILIES[name].closing)
        text = family_tokenizer(name).decode(thinking.closing_at_end().closing_ids)
        assert text == FAMILIES[name].closing.rstrip("\n")
    plain = ThinkingFormat(1, 2, (5, 2, 6))
    assert plain.closing_at_end().closing_ids == (5, 2)
    counted = ThinkingFormat(1, 2, (), before_end=(3,))
    assert counted.closing_at_end() == counted


def test_a_trial_answer_and_a_judge_are_written_in_the_familys_words() -> None:
    family, tokenizer = FAMILIES["gpt-oss"], family_tokenizer("gpt-oss")
    thinking = thinking_of(tokenizer, family, family.closing)
    assert thinking.end_id == tokenizer.convert_tokens_to_ids("<|end|>")
    writing = tokenizer_format(tokenizer, thinking)
    assert writing.chat is not None
    assert writing.decode is not None
    assert writing.decode(writing.chat("Is it done?")) == "Is it done?"


# Which of several.


def test_those_that_write_alike_are_told_apart_by_the_template() -> None:
    names = [family_of(tokenizer_of(*QWEN, each)) for each in (PLAIN, OPENING, None)]
    assert [each.name for each in names if each] == ["qwen3", "qwq", "qwen3"]


def test_several_between_which_it_matters_are_named() -> None:
    both = (ADDED["glm"][0] + ADDED["gpt-oss"][0], ADDED["glm"][1])
    own = {
        "one": Family("one", tokens=("[gMASK]",)),
        "two": Family("two", tokens=("<sop>",), closing="</think>"),
    }
    assert family_of(tokenizer_of(*both, PLAIN)) == FAMILIES["gpt-oss"]  # it has more tokens
    with pytest.raises(InvalidSetting, match="fits one, two; name one of them"):
        family_of(tokenizer_of(*both, PLAIN), None, own)
    assert family_of(tokenizer_of(*both, PLAIN), "two", own) == own["two"]


def test_a_name_that_is_unknown_or_does_not_fit_is_refused() -> None:
    tokenizer = family_tokenizer("qwen3")
    with pytest.raises(InvalidSetting, match=r"family='qwen4' .*use one of qwen3, qwq"):
        family_of(tokenizer, "qwen4")
    with pytest.raises(
        InvalidSetting, match=r"cannot write <\|channel\|>analysis.*in separate tokens"
    ):
        family_of(tokenizer, "gpt-oss")
    assert family_of(tokenizer, "think") == FAMILIES["think"]


def test_marks_that_are_text_are_of_no_family() -> None:
    assert family_of(tokenizer_of(CHATML, (), PLAIN)) is None  # Nemotron before 3
    half = {"half": Family("half", start="<|im_start|>x", end="<|im_end|>")}
    with pytest.raises(InvalidSetting, match="cannot write"):
        family_of(tokenizer_of(CHATML, (), PLAIN), "half", half)


def test_marks_that_do_not_survive_are_of_no_family() -> None:
    tokenizer = tokenizer_of(("<a>",), ("<b>",), None)
    tokenizer.backend_tokenizer.add_tokens([AddedToken("<c>", lstrip=True)])
    lossy = {"lossy": Family("lossy", start="<a> <c>", end="<b>", closing="<b>")}
    with pytest.raises(InvalidSetting, match="cannot write"):
        family_of(tokenizer, "lossy", lossy)


# A user's own.


def test_a_users_family_goes_before_the_built_in_ones() -> None:
    own = read_families(
        {"mine": {"tokens": ["<|im_start|>"], "closing": "\n</think>\n", "off": "x"}}
    )
    found = family_of(family_tokenizer("qwen3"), None, own)
    assert (
        found
        == own["mine"]
        == Family("mine", tokens=("<|im_start|>",), closing="\n</think>\n", off="x")
    )
    assert family_of(family_tokenizer("glm"), None, own) == FAMILIES["glm"]


SEVERAL = read_families({"mine": {"start": "<s>", "end": "<a>done<b>"}})["mine"]


def test_an_end_of_several_tokens_is_closed_whole_and_never_cut_into() -> None:
    assert SEVERAL.closing == "\n<a>done<b>\n\n"
    tokenizer = tokenizer_of(("<s>",), ("<a>", "<b>"), PLAIN)
    thinking = thinking_of(tokenizer, SEVERAL, SEVERAL.closing)
    assert tokenizer.decode(thinking.closing_ids) == SEVERAL.closing
    assert (thinking.thought_in_closing, len(thinking.before_end)) == (1, 5)
    natural = Driver(tokenizer, ExitController(ExitSettings(), thinking), skip_special=False)
    natural.play("<s>1+1=2\n<a>d<a>done<b>2")  # a beginning that breaks off, then the end
    outcome = natural.finish()
    assert outcome.reason is ExitReason.NATURAL
    assert outcome.reasoning_tokens == len("1+1=2\n") + 2
    closed = Driver(tokenizer, ExitController(ExitSettings(), thinking), skip_special=False)
    closed.play("<s>1+1=2\n<a>do")
    assert tokenizer.decode(closed.emitted) == "<s>1+1=2\n"  # what may be its end waits
    closed.execute(closed.controller.receive(FinishThinking()))
    assert tokenizer.decode(closed.emitted) == f"<s>1+1=2\n{SEVERAL.closing}"


def test_a_family_may_be_declared_to_count_only() -> None:
    own = read_families({"mine": {"exits": False}})["mine"]
    thinking = thinking_of(family_tokenizer("think"), own, own.closing)
    assert isinstance(thinking, ThinkingFormat)
    assert thinking.closing_ids == ()


def test_texts_that_are_not_the_built_in_ones_go_before_the_familys() -> None:
    glm = FAMILIES["glm"]
    assert apply_family(ExitSettings(), glm).closing_text == glm.closing
    mine = ExitSettings(closing_text="</think>!", inducing_prompt="So:")
    assert apply_family(mine, glm) == mine
    with pytest.raises(InvalidSetting, match="must contain </think>"):
        thinking_of(family_tokenizer("glm"), glm, "!")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (3, "use a mapping of family names"),
        ({"x": 3}, "x: use fields such as start"),
        ({"x": {"strat": "<a>"}}, "x.strat: did you mean 'start'"),
        ({"x": {"name": "<a>"}}, "x.name: .*use one of closing, derived"),
        ({"x": {"start": 3}}, "x.start=3: use a text"),
        ({"x": {"end": ""}}, "x.end='': use a text"),
        ({"x": {"tokens": "<a>"}}, "x.tokens='<a>': use a list of texts"),
        ({"x": {"tokens": [3]}}, "x.tokens=.*use a list of texts"),
        ({"x": {"opens": 1}}, "x.opens=1: use true or false"),
        ({"x": {"closing": "no"}}, "x.closing: 'no' must contain the end, '</think>'"),
    ],
)
def test_a_family_that_cannot_be_read_is_refused(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_families(value)


def test_every_note_is_a_sentence_of_the_table() -> None:
    for row in FAMILIES.values():
        assert row.models
        assert row.off
        assert "|" not in row.note
        assert dataclasses.replace(row, name="other").same_format(row)
