r"""Benchmarks: the sources of their questions, their prompts, and the number of samples.

To add a benchmark, add a row to `TASKS`, or describe it in a YAML file (`read_tasks`).
`training.data.sources` reads its questions, so an error in the data is reported with its location,
and a local file with the same columns replaces the hub. The prompt asks for reasoning and a box, in
the words of the training presets. Multiple-choice answers are letters: the order of the choices is
random for every question.

`Task.samples` is the default number of completions per question. With 30 questions and one sample
the standard deviation is up to 9 points, so small benchmarks have more samples.
"""

import dataclasses
import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stepgrpo_core import InvalidSetting
from stepgrpo_core.names import suggest
from stepgrpo_core.plugins import is_own, load_object
from training.config.layers import InvalidConfig, merge, read_layers
from training.config.typed import at_least, build
from training.data.files import FILE_SUFFIXES
from training.data.sources import Row, Source, read_source
from training.rollouts.batch import Sampling

__all__ = [
    "TASKS",
    "Draws",
    "Question",
    "Task",
    "digest_of",
    "draws_of",
    "load_task",
    "read_tasks",
    "task_of",
]

SUFFIX = " Please reason step by step, and put your final answer within \\boxed{}."
LETTER_SUFFIX = (
    "\n\nPlease reason step by step, and put the letter of your answer within \\boxed{}."
)
LETTERS = "ABCDEFGHIJ"
COLUMNS = ("prompt", "answer", "answer_after", "answer_box", "cut")
SAMPLED = {"samples", "max_tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty"}
"""Fields that the sampling of a single task may set."""
QWEN3 = Sampling(max_tokens=16_384, temperature=0.6, top_p=0.95, top_k=20)
"""Recommendation of Qwen3's authors for thinking; the limit is that of Step-GRPO's training."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question for a model."""

    id: str
    """Row number in the source, padded with zeros; sorts in the order of the source."""
    prompt: str
    """The whole user message."""
    gold: str
    groups: tuple[tuple[str, str], ...] = ()
    """Column and value of every group that the question belongs to, such as its level."""


@dataclass(frozen=True, slots=True)
class Task:
    """One benchmark. Raises InvalidSetting."""

    source: Source
    samples: int = 1
    """Default number of completions of each question."""
    suffix: str | None = None
    """Text appended to every question. None: a request for steps and a box, with the letter in the
    box if there are `choices`."""
    choices: tuple[str, ...] = ()
    """Columns of the wrong choices. Empty: not multiple choice, or the prompt contains the
    letters."""
    by: tuple[str, ...] = ()
    """Columns whose values have rows of their own in the report, such as ``level``."""
    grader: str | None = None
    """A function as ``package.module:name``, from the text after the thinking and the gold to a
    bool that is true for a correct answer (None: undecided). None: the built-in grader."""
    sampling: Sampling = field(default=QWEN3)
    """Default sampling parameters; their seed must be None."""
    dtype: str = "auto"
    """Data type for vLLM; auto converts float32 weights to bfloat16."""

    def __post_init__(self) -> None:
        at_least(1, samples=self.samples)
        if len(self.choices) >= len(LETTERS):
            remedy = f"name at most {len(LETTERS) - 1} columns"
            raise InvalidSetting("choices", self.choices, remedy)
        if self.sampling.seed is not None:
            raise InvalidSetting("sampling.seed", self.sampling.seed, "use --seed")

    @property
    def request(self) -> str:
        """Return the text that follows every question."""
        default = LETTER_SUFFIX if self.choices else SUFFIX
        return default if self.suffix is None else self.suffix


@dataclass(frozen=True, slots=True)
class Draws:
    """Number of samples and sampling parameters of a task's questions."""

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
    "math500": Task(
        Source(hub="HuggingFaceH4/MATH-500", split="test", prompt="problem"),
        samples=4,
        by=("level", "subject"),
    ),
    "amc23": Task(Source(hub="math-ai/amc23", split="test", prompt="question"), 16),
    "aime24": Task(Source(hub="HuggingFaceH4/aime_2024", prompt="problem"), 16),
    "aime25": Task(Source(hub="math-ai/aime25", split="test", prompt="problem"), 16),
    "gpqa-diamond": Task(
        Source(
            hub="Idavidrein/gpqa",  # requires accepting its terms on the hub
            config="gpqa_diamond",
            prompt="Question",
            answer="Correct Answer",
        ),
        samples=8,
        choices=("Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3"),
        by=("High-level domain",),
    ),
    "demo": Task(
        Source(demo=200, demo_split="test"),
        samples=4,
        suffix="",  # the prompts contain the request
        sampling=Sampling(max_tokens=900, temperature=0.6),
        dtype="float32",
    ),
}
"""Benchmarks by their names in `--tasks`."""


def read_tasks(path: Path | None) -> dict[str, Task]:
    """Return the built-in tasks and those of a YAML file, from name to fields of `Task`.

    Under the name of a built-in task a file changes some of its fields; `source` is replaced as a
    whole. Raises InvalidConfig.
    """
    if path is None:
        return TASKS
    found = dict(TASKS)
    for name, values in merge(read_layers(str(path), Path())).items():
        try:
            found[name] = build(Task, values, (name,), TASKS.get(name))
        except InvalidConfig as error:
            raise InvalidConfig(error.problem, error.route, str(path)) from error
    return found


def task_of(name: str, tasks: Mapping[str, Task] = TASKS) -> Task:
    """Return the task of that name in `tasks`, or the user's own one: ``package.module:name`` or an
    entry point in group ``stepgrpo.tasks``. Raises InvalidSetting."""
    if name not in tasks and is_own(name, "tasks"):
        wanted = "a training.evaluation.tasks.Task"
        task: Task = load_object(name, "tasks", lambda it: isinstance(it, Task), wanted, "tasks")
        return task
    if name not in tasks:
        raise InvalidSetting("tasks", name, f"use one of {', '.join(tasks)}")
    return tasks[name]


def draws_of(
    name: str,
    *,
    tasks: Mapping[str, Task] = TASKS,
    own: Mapping[str, Any] | None = None,
    samples: int | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    top_k: int | None = None,
    max_tokens: int | None = None,
) -> Draws:
    """Return the task's defaults, overridden by the other arguments; `own` is for this task alone
    and may contain every field of `SAMPLED`. Raises InvalidSetting and InvalidConfig."""
    task = task_of(name, tasks)
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
    if own:
        draws = _with_own(draws, own)
        sampling = draws.sampling
    _check("samples", draws.samples, draws.samples >= 1, "use 1 or more")
    _check("max_tokens", sampling.max_tokens, sampling.max_tokens >= 1, "use 1 or more")
    _check("temperature", sampling.temperature, sampling.temperature >= 0, "use 0 or more")
    _check("top_p", sampling.top_p, 0 < sampling.top_p <= 1, "use more than 0, at most 1")
    _check("top_k", sampling.top_k, sampling.top_k >= 0, "use 0 (all tokens) or more")
    greedy = sampling.temperature == 0 and draws.samples > 1
    _check("samples", draws.samples, not greedy, "at temperature 0 all are equal; use 1")
    return draws


def _with_own(draws: Draws, own: Mapping[str, Any]) -> Draws:
    if unknown := set(own) - SAMPLED:
        name = min(unknown)
        raise InvalidSetting("sampling", name, suggest(name, SAMPLED))
    values = dict(own)
    samples = {"samples": values.pop("samples")} if "samples" in values else {}
    made: Draws = build(Draws, samples, ("sampling",), draws)
    sampling = build(Sampling, values, ("sampling",), draws.sampling)
    return dataclasses.replace(made, sampling=sampling)


def _check(name: str, value: object, honored: bool, remedy: str) -> None:
    if not honored:
        raise InvalidSetting(name, value, remedy)


def load_task(
    name: str,
    *,
    tasks: Mapping[str, Task] = TASKS,
    limit: int | None = None,
    data: str | None = None,
    seed: int = 0,
) -> list[Question]:
    """Return the first `limit` questions of a task, in the order of their source.

    `data` replaces the hub: a file with the same columns, or a directory with the layout of the
    hub's data set. `seed` determines the order of choices, and the demo's problems. Raises
    InvalidSetting, and whatever `read_source` raises.
    """
    task = task_of(name, tasks)
    source = _located(task.source, limit, data, seed)
    rows = list(read_source(source, task.by))
    wrong = [list(read_source(dataclasses.replace(source, answer=each))) for each in task.choices]
    if not rows:
        raise InvalidSetting(f"data of {name}", source.name, "it holds no rows; check the file")
    for column in () if name in TASKS else task.by:
        if all(column not in dict(row.columns) for row in rows):
            raise InvalidSetting(f"by of {name}", column, "no row has this column")
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
    columns = {key: getattr(source, key) for key in COLUMNS}
    return Source(path=data, limit=limit, **columns)


def _question(task: Task, row: Row, wrong: Sequence[str], seed: str) -> Question:
    if not task.choices:
        return Question(f"{row.number:05}", row.prompt + task.request, row.answer, row.columns)
    choices = [row.answer, *wrong]
    order = list(range(len(choices)))
    random.Random(f"{seed}:{row.number}").shuffle(order)
    lines = (f"{letter}) {choices[index]}" for letter, index in zip(LETTERS, order, strict=False))
    prompt = f"{row.prompt}\n\n" + "\n".join(lines) + task.request
    return Question(f"{row.number:05}", prompt, LETTERS[order.index(0)], row.columns)


def digest_of(questions: Sequence[Question]) -> str:
    """Return a digest of the questions with their wording, golds and order."""
    text = json.dumps([(each.id, each.prompt, each.gold) for each in questions])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
