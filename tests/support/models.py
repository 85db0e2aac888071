"""The demo model for clients: its tokenizer, the ids of its thinking, and problems."""

from transformers import AutoTokenizer

from tests.support.servers import MODEL
from training.demo.world import sample_problems

PROBLEMS = sample_problems(7, "test", 64)
TOKENIZER = AutoTokenizer.from_pretrained(MODEL)
START, END = TOKENIZER.convert_tokens_to_ids(["<think>", "</think>"])
EOS = TOKENIZER.eos_token_id


def prompt_ids(index: int) -> list[int]:
    """Return a problem in the chat template, after which the model opens its thinking."""
    ids: list[int] = TOKENIZER.apply_chat_template(
        [{"role": "user", "content": PROBLEMS[index].prompt}],
        add_generation_prompt=True,
        return_dict=False,
    )
    return ids
