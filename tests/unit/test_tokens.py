"""Texts of single tokens behind a prompt, against those behind all of it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.decoders import DecodeStream

from service.streams.detokenizer import CONTEXT, TokenTexts
from training.demo.tokenizer import build_tokenizer

TOKENIZER: Any = build_tokenizer()
BYTES = TOKENIZER.encode("7é漢😀</think>\n\n Wait, 4", add_special_tokens=False)


def behind_all(prompt: list[int], ids: list[int], *, skip: bool) -> list[str]:
    stream = DecodeStream(ids=prompt, skip_special_tokens=skip)
    return [stream.step(TOKENIZER.backend_tokenizer, token) or "" for token in ids]


@given(
    st.lists(st.sampled_from(BYTES), max_size=4 * CONTEXT),
    st.lists(st.sampled_from(BYTES), max_size=12),
    st.booleans(),
)
def test_the_end_of_a_prompt_is_enough(prompt: list[int], ids: list[int], skip: bool) -> None:
    texts = TokenTexts(TOKENIZER, prompt, skip_special_tokens=skip)
    assert texts.texts(ids) == behind_all(prompt, ids, skip=skip)


def test_a_character_may_begin_in_the_prompt() -> None:
    first, *rest = TOKENIZER.encode("😀", add_special_tokens=False)
    if not rest:
        pytest.fail("this tokenizer has the character as one token: take another")
    prompt = [*TOKENIZER.encode("3" * 40, add_special_tokens=False), first]
    texts = TokenTexts(TOKENIZER, prompt, skip_special_tokens=True).texts(rest)
    assert texts == behind_all(prompt, rest, skip=True)
    assert texts[-1].endswith("😀")
