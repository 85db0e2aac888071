r"""Benchmarks: where their questions come from, how they are put, and how often.

To add a benchmark, add a row to `TASKS`. `training.data.sources` reads its questions, so a fault
in the data is reported with its place, and a local file with the same columns replaces the hub.
The prompt asks for reasoning and a box, in the words of the training presets. Multiple-choice
answers are letters: the order of the choices is drawn anew for every question.

`Task.samples` are the completions of each question by default: 30 questions answered once have a
standard deviation of up to 9 points, so the small sets are answered more often.
"""

import dataclasses
import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stepgrpo_core import InvalidSetting
from training.data.files import FILE_SUFFIXES
from training.data.sources import Row, Source, read_source
from training.rollouts.batch import Sampling

__all__ = ["TASKS", "Draws", "Question", "Task", "digest_of", "draws_of", "load_task", "task_of"]

SUFFIX = " Please reason step by step, and put your final answer within \\boxed{}."
LETTER_SUFFIX = (
    "\n\nPlease reason step by step, and put the letter of your answer within \\boxed{}."
)
LETTERS = "ABCDEFGHIJ"
QWEN3 = Sampling(max_tokens=16_384, temperature=0.6, top_p=0.95, top_k=20)
"""What Qwen3's authors advise for thinking; the limit is that of Step-GRPO's training."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a model is asked."""

    id: str
    """The row's number in its source; sorts in the source's order."""
    prompt: str
    """The whole user message."""
    gold: str


@dataclass(frozen=True, slots=True)
class Task:
    """One benchmark."""

    source: Source
    samples: int
    """Completions of each question by default."""
    suffix: str = SUFFIX
    choices: tuple[str, ...] = ()
    """Columns of the wrong choices; none: no multiple choice."""
    sampling: Sampling = field(default=QWEN3)
    """How completions are drawn by default, but for the seed."""
    dtype: str = "auto"
    """vLLM's default; auto makes bfloat16 of float32 weights."""


@dataclass(frozen=True, slots=True)
class Draws:
    """How often and how the questions of a task are completed."""

    samples: int
    sampling: Sampling


TASKS: dict[str, Task] = {
    "gsm8k": Task(
        Source(
            hub="openai/gsm8k",
            config="main",
            split="test",
            prompt="question",
            answer="answer",
            answer_after="####",
        ),
        samples=1,
    ),
    "math500": Task(Source(hub="HuggingFaceH4/MATH-500", split="test", prompt="problem"), 4),
    "amc23": Task(Source(hub="math-ai/amc23", split="test", prompt="question"), 16),
    "aime24": Task(Source(hub="HuggingFaceH4/aime_2024", prompt="problem"), 16),
    "aime25": Task(Source(hub="math-ai/aime25", split="test", prompt="problem"), 16),
    "gpqa-diamond": Task(
        Source(
            hub="Idavidrein/gpqa",  # its terms must be accepted on the hub
            config="gpqa_diamond",
            prompt="Question",
            answer="Correct Answer",
        ),
        samples=8,
        suffix=LETTER_SUFFIX,
        choices=("Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3"),
    ),
    "demo": Task(
        Source(demo=200, demo_split="test"),
        samples=4,
        suffix="",  # the prompts hold their own
        sampling=Sampling(max_tokens=900, temperature=0.6),
        dtype="float32",
    ),
}
"""Benchmarks by the name that `--tasks` uses."""


def task_of(name: str) -> Task:
    """The task; raises InvalidSetting for an unknown name."""
    if name not in TASKS:
        raise InvalidSetting("tasks", name, f"use one of {', '.join(TASKS)}")
    return TASKS[name]


def draws_of(
    name: str,
    *,
    samples: int | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    top_k: int | None = None,
    max_tokens: int | None = None,
) -> Draws:
    """The task's defaults, where nothing else is given; raises InvalidSetting."""
    task = task_of(name)
    given: dict[str, Any] = {
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "max_tokens": max_tokens,
    }
    sampling = dataclasses.replace(
        task.sampling, **{key: value for key, value in given.items() if value is not None}
    )
    draws = Draws(task.samples if samples is None else samples, sampling)
    _check("samples", draws.samples, draws.samples >= 1, "use 1 or more")
    _check("max_tokens", sampling.max_tokens, sampling.max_tokens >= 1, "use 1 or more")
    _check("temperature", sampling.temperature, sampling.temperature >= 0, "use 0 or more")
    _check("top_p", sampling.top_p, 0 < sampling.top_p <= 1, "use more than 0, at most 1")
    _check("top_k", sampling.top_k, sampling.top_k >= 0, "use 0 (all tokens) or more")
    greedy = sampling.temperature == 0 and draws.samples > 1
    _check("samples", draws.samples, not greedy, "at temperature 0 all are equal; use 1")
    return draws


def _check(name: str, value: object, honoured: bool, remedy: str) -> None:
    if not honoured:
        raise InvalidSetting(name, value, remedy)


def load_task(
    name: str, *, limit: int | None = None, data: str | None = None, seed: int = 0
) -> list[Question]:
    """The questions of a task, the first `limit` of them, in the order of their source.

    `data` replaces the hub: a file in the same columns, or a directory laid
    out as the hub's data set. `seed` draws the order of choices, and the demo's problems.
    Raises InvalidSetting, and what `read_source` raises.
    """
    task = task_of(name)
    source = _located(task.source, limit, data, seed)
    rows = list(read_source(source))
    wrong = [list(read_source(dataclasses.replace(source, answer=each))) for each in task.choices]
    if not rows:
        raise InvalidSetting(f"data of {name}", source.name, "it holds no rows; check the file")
    return [
        _question(task, row, [column[place].answer for column in wrong], f"{seed}:{name}")
        for place, row in enumerate(rows)
    ]


def _located(source: Source, limit: int | None, data: str | None, seed: int) -> Source:
    if data is None and source.demo:
        return dataclasses.replace(source, demo=limit or source.demo, seed=seed)
    if data is None:
        return dataclasses.replace(source, limit=limit)
    if Path(data).is_dir():
        return dataclasses.replace(source, hub=data, limit=limit)
    if not data.endswith(FILE_SUFFIXES):
        remedy = f"use a directory laid out as the hub's, or a file of {', '.join(FILE_SUFFIXES)}"
        raise InvalidSetting("data", data, remedy)
    columns = {
        key: getattr(source, key) for key in ("prompt", "answer", "answer_after", "answer_box")
    }
    return Source(path=data, limit=limit, **columns)


def _question(task: Task, row: Row, wrong: Sequence[str], seed: str) -> Question:
    if not task.choices:
        return Question(f"{row.number:05}", row.prompt + task.suffix, row.answer)
    choices = [row.answer, *wrong]
    order = list(range(len(choices)))
    random.Random(f"{seed}:{row.number}").shuffle(order)
    lines = (f"{letter}) {choices[index]}" for letter, index in zip(LETTERS, order, strict=False))
    prompt = f"{row.prompt}\n\n" + "\n".join(lines) + task.suffix
    return Question(f"{row.number:05}", prompt, LETTERS[order.index(0)])


def digest_of(questions: Sequence[Question]) -> str:
    """Names these very questions, with their wording, golds and order."""
    text = json.dumps([dataclasses.astuple(each) for each in questions])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
