"""A tokenizer whose tokens merge parts of delimiters with neighboring characters."""

from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

# Like real vocabularies: delimiters in pieces, some of which include a neighboring character.
MERGES = ("</", ".</", "think", ">\n", ">\n\n", "Wait", "<", ">")
TEMPLATE = "<|user|>{{ messages[0].content }}<|end|><|assistant|>"


def made(template: str | None = TEMPLATE) -> Any:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {each: place for place, each in enumerate(alphabet)}
    merges: list[tuple[str, str]] = []
    for text in (each.replace("\n", "Ċ") for each in MERGES):
        for size in range(1, len(text)):
            if text[: size + 1] not in vocabulary:
                vocabulary[text[: size + 1]] = len(vocabulary)
                merges.append((text[:size], text[size]))
    core = Tokenizer(models.BPE(vocabulary, merges))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    turns = ("<|user|>", "<|end|>", "<|assistant|>")
    core.add_special_tokens([AddedToken(each, special=True) for each in turns])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|end|>")
    tokenizer.chat_template = template
    return tokenizer
