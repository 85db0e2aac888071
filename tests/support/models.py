"""The demo model from outside: its tokenizer, the ids it thinks with, and problems."""

from transformers import AutoTokenizer

from tests.support.servers import MODEL
from training.demo.world import sample_problems

PROBLEMS = sample_problems(7, "test", 64)
TOKENIZER = AutoTokenizer.from_pretrained(MODEL)
START, END = TOKENIZER.convert_tokens_to_ids(["<think>", "</think>"])
EOS = TOKENIZER.eos_token_id


def prompt_ids(index: int) -> list[int]:
    """A problem in the chat template; the model opens its thinking itself."""
    ids: list[int] = TOKENIZER.apply_chat_template(
        [{"role": "user", "content": PROBLEMS[index].prompt}],
        add_generation_prompt=True,
        return_dict=False,
    )
    return ids
