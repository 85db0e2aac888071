"""Tokenizer of the demo model: byte-level BPE with Qwen's splitting rule, trained on the demo
world.

Any text round-trips, because every byte is a token. As in Qwen3, ``<think>`` and ``</think>`` are
added tokens that are *not* special: they appear in the decoded text. With special tokens, or
several per mark, tests of thinking control would not test the common case.
"""

import random
import re
from collections.abc import Iterator
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from training.demo.world import sample_problem, sample_trace

VOCABULARY = 512
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
THINKING = ("<think>", "</think>")
SINGLE_TOKENS = ("Wait", "Alternatively", "Hmm")  # with and without a leading space

QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

CHAT_TEMPLATE = (Path(__file__).parent / "chat_template.jinja").read_text(encoding="utf-8")


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Train the tokenizer; the result is deterministic."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIAL) - len(THINKING),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(_corpus(), trainer)
    core.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    core.add_tokens([AddedToken(token, special=False, normalized=False) for token in THINKING])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=SPECIAL[2],
        pad_token=SPECIAL[0],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def _corpus() -> Iterator[str]:
    rng = random.Random("tokenizer")
    # Repeated more often than any other text, so that each is merged to one token first.
    for word in SINGLE_TOKENS:
        yield from (f"{word}, so {word} " for _ in range(20_000))
    for _ in range(3_000):  # traces without control tokens
        problem = sample_problem(rng, "train")
        yield f"user\n{problem.prompt}"
        trace = "".join(piece.text for piece in sample_trace(problem, rng))
        yield "assistant\n" + re.sub("</?think>", "", trace)
