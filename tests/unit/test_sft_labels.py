"""Which tokens SFT trains on, with real tokenizers, beside the marks of TRL's training templates.

TRL's ``{% generation %}`` marks differ by template: they include the line end after the end of turn
(Qwen) or the role (gpt-oss, DeepSeek-R1's distillations). `labeled_rows` does not use them: loss is
on the generated tokens alone.
"""

from pathlib import Path
from typing import Any

import pytest
import trl
from transformers import PreTrainedTokenizerFast

from tests.support.core.published import tokenizer_of
from training.config.schema import load_config
from training.data.dataset import Row
from training.grading import Grader
from training.rollouts.scripted_engine import ScriptedEngine, Stream
from training.rollouts.types import Request
from training.rollouts.vllm_engine import format_of
from training.sft.rejection_sampling import Sampler
from training.sft.samples import labeled_rows

ANSWER = "The answer is \\boxed{9}."
CONFIG = ("demo", "methods/deer-sft")
# Template, completion, end of turn, and the text that TRL's marks include before and after these.
MARKED = {
    "Qwen3": ("qwen3", "<think>\n4+5=9\n</think>\n\n", "<|im_end|>", "", "\n"),
    "Qwen3.6": ("qwen3_6", "4+5=9\n</think>\n\n", "<|im_end|>", "<think>\n", "\n"),
    "R1-Distill-Llama": (
        "deepseek_r1_distill",
        "4+5=9\n</think>\n\n",
        "<｜end▁of▁sentence｜>",
        "<｜Assistant｜><think>\n",
        "",
    ),
    "gpt-oss": (
        "gptoss",
        "<|channel|>analysis<|message|>4+5=9<|end|><|start|>assistant<|channel|>final<|message|>",
        "<|return|>",
        "<|start|>assistant",
        "",
    ),
    "GLM-4.6": ("glm4moe", "\n<think>4+5=9</think>\n", "<|user|>", "", ""),
}


def trained_by_marks(tokenizer: Any, template: str, prompt: str) -> str:
    """Return the text that carries loss under TRL's ``assistant_only_loss``."""
    thought = {"reasoning_content": "4+5=9", "thinking": "4+5=9"}
    if template == "deepseek_r1_distill":  # it reads reasoning from the content only
        turn = {"role": "assistant", "content": f"<think>\n4+5=9\n</think>\n\n{ANSWER}"}
    else:
        turn = {"role": "assistant", "content": ANSWER, **thought}
    path = Path(trl.__file__).parent / "chat_templates" / f"{template}_training.jinja"
    row = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}, turn],
        chat_template=path.read_text("utf-8"),
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    marked = zip(row["input_ids"], row["assistant_masks"], strict=True)
    return str(tokenizer.decode([token for token, mark in marked if mark]))


@pytest.mark.parametrize("name", MARKED)
def test_loss_is_on_the_generated_tokens_without_role_and_line_end(name: str) -> None:
    template, thought, end_of_turn, before, after = MARKED[name]
    tokenizer: PreTrainedTokenizerFast = tokenizer_of(name)
    completion = thought + ANSWER + end_of_turn
    row = Row("What is 4+5?", "9", "test", 1)
    config = load_config([*CONFIG], ["output=/none", "sft.samples=1", "trl.bf16=false"])
    form = format_of(tokenizer, config.rollout.exit.closing_text)

    def script(request: Request) -> Stream:
        del request
        return Stream(tuple(tokenizer.encode(completion, add_special_tokens=False)))

    with Grader(workers=1) as grader:
        samples = Sampler(config, tokenizer, form, ScriptedEngine(script), grader)({0: row})
    (trained,) = labeled_rows(samples, train_injected=True, max_rows=None, seed=0)
    loss = tokenizer.decode([token for token in trained["labels"] if token != -100])
    assert loss == completion
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": row.prompt}], add_generation_prompt=True, tokenize=False
    )
    assert tokenizer.decode(trained["input_ids"]) == prompt + completion
    assert trained_by_marks(tokenizer, template, row.prompt) == before + completion + after
