"""How a tokenizer writes thinking, asked of the demo model's and of one that cannot think."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from stepgrpo_core.errors import InvalidSetting
from stepgrpo_core.families.table import FAMILIES
from stepgrpo_core.families.thinking import (
    continues_thinking,
    family_of,
    opens_in_thinking,
    special_ids,
    switches_of,
    thinking_of,
    tokenizer_format,
)

CLOSING = "\n</think>\n\n"
TOKENIZER = AutoTokenizer.from_pretrained(Path(__file__).parents[3] / "models" / "demo-base")
THINKING = thinking_of(TOKENIZER, FAMILIES["demo"], CLOSING)


def test_the_closing_text_becomes_ids_that_close() -> None:
    assert TOKENIZER.decode(THINKING.closing_ids) == CLOSING
    assert THINKING.end_id in THINKING.closing_ids


def test_tokens_that_open_a_tool_call_are_known_where_they_exist() -> None:
    assert THINKING.tool_ids == frozenset()  # the demo model writes them letter by letter
    other = AutoTokenizer.from_pretrained(TOKENIZER.name_or_path)
    other.add_tokens(["<tool_call>", "</tool_call>"])
    found = thinking_of(other, FAMILIES["demo"], CLOSING)
    assert found.tool_ids == {other.convert_tokens_to_ids("<tool_call>")}


def test_a_closing_can_end_with_the_thinking() -> None:
    bare = THINKING.closing_at_end()
    assert TOKENIZER.decode(bare.closing_ids) == "\n</think>"
    assert bare.closing_at_end() == bare


def test_a_tokenizer_without_thinking_tokens_has_no_format() -> None:
    plain = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0})))
    assert family_of(plain) is None
    assert family_of(SimpleNamespace()) is None  # a slow one


def test_a_tokenizer_writes_text_and_messages_and_one_without_template_no_messages() -> None:
    writing = tokenizer_format(TOKENIZER, THINKING)
    assert writing.decode is not None
    assert writing.chat is not None
    assert writing.decode(writing.encode("47+8=55")) == "47+8=55"
    asked = writing.decode(writing.chat("Is it done?"))
    assert asked.startswith("user\nIs it done?")
    assert asked.endswith("<think>\n\n</think>\n\n")  # the judge answers at once
    plain = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0})))
    assert tokenizer_format(plain, THINKING).chat is None


def test_a_closing_text_that_does_not_close_is_refused() -> None:
    with pytest.raises(InvalidSetting, match="must contain </think>"):
        thinking_of(TOKENIZER, FAMILIES["demo"], "the end")


@pytest.mark.parametrize(
    ("prompt", "opened"),
    [
        ("assistant\n<think>", True),
        ("assistant\n<think>\n", True),
        ("assistant\n", False),
        ("", False),
        ("<think>\nso far", False),
        ("<think></think>\n\n", False),
    ],
)
def test_only_the_end_of_a_prompt_opens_the_thinking(prompt: str, opened: bool) -> None:
    ids = TOKENIZER.encode(prompt, add_special_tokens=False)
    assert opens_in_thinking(TOKENIZER, THINKING, ids) is opened


def test_the_switch_of_a_template_is_the_variable_that_makes_a_difference() -> None:
    assert switches_of(TOKENIZER) == ("enable_thinking",)
    assert switches_of(TOKENIZER, "{% if thinking %}<think>{% endif %}") == ("thinking",)
    assert switches_of(TOKENIZER, "{{ messages[0].content }}") == ()
    plain = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0})))
    assert switches_of(plain) == ()


@pytest.mark.parametrize(
    ("prompt", "continues"),
    [
        ("<|im_start|>assistant\n<think>\nso far", True),
        ("<think>\nso far", True),
        ("<|im_start|>assistant\n<think>\n", False),  # opens it
        ("<|im_start|>assistant\n<think>\nso far</think> 5", False),
        ("<|im_start|>user\n<think>\nWait<|im_end|>\n<|im_start|>assistant\n", False),
        ("1+1=", False),
    ],
)
def test_a_prompt_may_end_inside_a_thought(prompt: str, continues: bool) -> None:
    ids = TOKENIZER.encode(prompt, add_special_tokens=False)
    special = special_ids(TOKENIZER)
    assert continues_thinking(TOKENIZER, THINKING, ids, special) is continues
