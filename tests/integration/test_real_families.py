"""Four families on real servers: tiny random models on real vocabularies, with published templates.

A random model writes no end of thinking. The tests check that the prompt's state, budgets, the
closing text, vLLM's parsers and the stream agree.
"""

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from tests.support.core.published import FAMILIES, tokenizer_of, vocabulary
from tests.support.servers import Server, running

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.background]

PARSERS: dict[str, tuple[str, ...]] = {
    "Qwen3.5": ("--reasoning-parser", "qwen3"),
    "R1-Distill-Llama": ("--reasoning-parser", "deepseek_r1"),
    # In streams, vLLM's tool parser for this family removes the marks around its answers.
    "Kimi-K3": ("--reasoning-parser", "kimi_k3", "--tool-call-parser", "kimi_k3"),
    # This parser reads <think> as text, as the model writes it.
    "Nemotron-Nano-v2": ("--reasoning-parser", "olmo3"),
}
"""The flags of each family's parsers."""
BUDGET, LIMIT = 24, 60
QUESTION = [{"role": "user", "content": "What does <think> do, and what is 47+8?"}]


def tiny(tokenizer: Any, folder: Path) -> Path:
    """A random model with a tokenizer's vocabulary."""
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        eos_token_id=None,
        bos_token_id=None,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@contextlib.contextmanager
def serving(model: Path, *flags: str) -> Iterator[Server]:
    command = (sys.executable, "-m", "service.cli", str(model))
    own = ("--served-model-name", "tiny", "--max-model-len", "512")
    with running(command, model / "server.log", *own, *flags) as up:
        yield up


def ask(server: Server, **more: Any) -> httpx.Response:
    body = {
        "model": "tiny",
        "messages": QUESTION,
        "max_tokens": LIMIT,
        "temperature": 0.8,
        "seed": 3,
        "ignore_eos": False,
        "thinking_token_budget": BUDGET,
    }
    return httpx.post(f"{server.url}/v1/chat/completions", json=body | more, timeout=120)


def streamed(server: Server) -> tuple[str, str, dict[str, Any]]:
    """Reasoning, content and block of the same request as a stream."""
    reasoning, content = "", ""
    block: dict[str, Any] = {}
    for line in ask(server, stream=True).text.splitlines():
        if line.startswith("data: {"):
            event = json.loads(line.removeprefix("data: "))
            block = event.get("stepgrpo", block)
            for choice in event["choices"]:
                reasoning += choice["delta"].get("reasoning") or ""
                content += choice["delta"].get("content") or ""
    return reasoning, content, block


@pytest.mark.parametrize("name", PARSERS)
def test_a_budget_closes_the_thinking_in_the_familys_words(name: str, tmp_path: Path) -> None:
    real, tokenizer = FAMILIES[name], tokenizer_of(name)
    assert real.state == "open"
    with serving(tiny(tokenizer, tmp_path), *PARSERS[name]) as server:
        log = server.said()
        assert f"Thinking as of family {real.family} " in log
        assert repr(real.closing) in log
        assert "by the same marks" in log
        whole = ask(server)
        assert whole.status_code == 200, whole.text
        block, message = whole.json()["stepgrpo"], whole.json()["choices"][0]["message"]
        assert block["exit_reason"] == "budget"
        assert BUDGET <= block["reasoning_tokens"] <= BUDGET + BUDGET // 10 + 2
        reasoning, content = message["reasoning"], message["content"]
        assert reasoning
        assert content
        end = real.closing.strip().split("\n")[0]
        assert end not in reasoning
        assert end not in content
        assert streamed(server) == (reasoning, content, block)


def test_a_model_of_no_known_family_says_so_in_every_block(tmp_path: Path) -> None:
    llama = PreTrainedTokenizerFast.from_pretrained(vocabulary("llama3_1"))
    with serving(tiny(llama, tmp_path), "--reasoning-parser", "") as server:
        assert "name its family by --exit-family" in server.said()
        refused = ask(server)
        assert refused.status_code == 400
        assert "thinking_token_budget" in refused.text
        for xargs in ({}, {"exit_policy": "confidence"}):
            answer = ask(server, thinking_token_budget=None, vllm_xargs=xargs).json()
            assert answer["stepgrpo"]["abstained"] == "no_thinking_tokens"
            assert answer["stepgrpo"]["reasoning_tokens"] is None
