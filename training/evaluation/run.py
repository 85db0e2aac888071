"""Completion and grading of the questions of tasks with one model, under each of its exit policies.

The rollouts are training's (`training.rollouts.batch`), so exits are the same as on the server.
Every completion has its own seed, derived from the run's seed, the task, the question and the
sample, and equal for all contenders. The prefix cache is emptied between contenders, so their order
does not matter.

A separate thread grades and writes (`writer`). Questions that an interrupted evaluation had not
written are completed again with the same seeds, but in other batches. If a sum rounds differently
(rarely in float32, often in bfloat16), a completion can diverge from the first run: it is another
draw from the same distribution.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from stepgrpo_core import InvalidSetting
from stepgrpo_core.families.thinking import opens_in_thinking
from training.config.schema import GradingConfig
from training.data.prompts import PLAIN, PromptTemplate
from training.evaluation.engines import (
    KEPT,
    Completer,
    LocalEngine,
    RemoteEngine,
    version_of,
)
from training.evaluation.origin import weights_of
from training.evaluation.records import (
    HERE,
    Contender,
    EngineSettings,
    Settings,
    open_records,
    read_records,
    records_file,
    safe_name,
)
from training.evaluation.tasks import TASKS, Draws, Question, Task, digest_of, task_of
from training.evaluation.writer import Writer, Writing
from training.grading import GraderBroken, grader_of
from training.rollouts.batch import Format, RolloutRequest
from training.rollouts.remote import RemoteFailure
from training.run.adapters import base_of
from training.run.checkpoints import RunStopped, StopOnSignal
from training.run.processes import run_in_subprocess

__all__ = ["Contender", "Work", "complete", "complete_all", "plan", "seed_of"]


@dataclass(frozen=True, slots=True)
class Work:
    """One contender on one task: the questions to complete, and the file of the records."""

    contender: Contender
    task: str
    questions: Sequence[Question]
    draws: Draws
    settings: Settings
    path: Path
    engine: EngineSettings = HERE

    def left(self) -> list[Question]:
        """Return the questions without records; raises ValueError if the file has other
        settings."""
        done = {each.question for each in read_records(self.path, self.settings)}
        return [each for each in self.questions if each.id not in done]


def plan(
    contenders: Sequence[Contender],
    tasks: Mapping[str, Sequence[Question]],
    draws: Mapping[str, Draws],
    output: Path,
    *,
    dtype: str | None = None,
    seed: int = 0,
    limit: int | None = None,
    prompts: PromptTemplate = PLAIN,
    table: Mapping[str, Task] = TASKS,
    engine: EngineSettings = HERE,
) -> list[Work]:
    """Return the work for every contender on every task; `table` contains all of the tasks. If
    `dtype` is None: float32 if all tasks request it, as the demo does, else auto. Raises
    InvalidSetting for names that would share a file, and for directories without a model."""
    if dtype is None:
        wanted = {task_of(task, table).dtype for task in tasks}
        dtype = wanted.pop() if len(wanted) == 1 else "auto"
    files = [safe_name(each.name) for each in contenders]
    for place, each in enumerate(contenders):
        if files.index(files[place]) != place:
            remedy = "another contender has this name or its file; use --model NAME=PATH"
            raise InvalidSetting("name", each.name, remedy)
    for each in contenders:
        whole = (Path(each.model) / "config.json").exists() or base_of(each.model)
        if Path(each.model).is_dir() and not whole:
            remedy = "the directory has neither config.json nor adapter_config.json"
            raise InvalidSetting("model", each.model, remedy)
    version = version_of(engine)
    weights = {model: weights_of(model) for model in {each.model for each in contenders}}
    digests = {task: digest_of(questions) for task, questions in tasks.items()}
    return [
        Work(
            contender,
            task,
            questions,
            draws[task],
            Settings(
                contender=contender.name,
                model=contender.model,
                weights=weights[contender.model],
                exit=contender.exit,
                family=contender.family,
                prompts=prompts,
                grader=task_of(task, table).grader,
                task=task,
                limit=limit,
                questions=digests[task],
                draws=draws[task],
                dtype=dtype,
                seed=seed,
                engine=version,
            ),
            records_file(output, contender.name, task),
            engine,
        )
        for contender in contenders
        for task, questions in tasks.items()
    ]


def complete(works: Sequence[Work], keep_completions: bool, stopping: Callable[[], bool]) -> None:
    """Complete what is left of `works`, which share a model.

    Raises RunStopped if `stopping` returns true, and for errors of the engine, the grader or the
    disk.
    """
    left = [work.left() for work in works]
    if not any(left):
        return
    try:
        session = _Session.load(works, keep_completions, stopping)
        total = sum(len(work.questions) for work in works)
        initial = total - sum(map(len, left))
        with tqdm(total=total, initial=initial, unit="question") as bar:
            for work, questions in zip(works, left, strict=True):
                session.run(work, questions, bar)
    except (ValueError, OSError, GraderBroken, RemoteFailure) as error:
        raise RunStopped(f"{error}; {KEPT}") from error


def complete_all(works: Sequence[Work], *, keep_completions: bool, stop: StopOnSignal) -> None:
    """Complete what is left of `works`, one model after the other, each in its own process, whose
    end frees the device. Raises ValueError for files with other settings, and RunStopped."""
    unfinished = [work.contender.model for work in works if work.left()]
    for model in dict.fromkeys(unfinished):
        mine = [work for work in works if work.contender.model == model]
        run_in_subprocess(complete, mine, keep_completions, stop=stop, remedy=KEPT)
        if stop.signal is not None:
            raise RunStopped(f"{stop.signal.name}; {KEPT}")


@dataclass(frozen=True, slots=True)
class _Session:
    """A loaded engine with its tokenizer; `keep` stores whole texts."""

    engine: Completer
    tokenizer: Any
    keep: bool

    @classmethod
    def load(cls, works: Sequence[Work], keep: bool, stopping: Callable[[], bool]) -> "_Session":
        from transformers import AutoTokenizer  # noqa: PLC0415 - slow to load

        (model,) = {work.contender.model for work in works}
        tokenizer = AutoTokenizer.from_pretrained(model)
        settings = works[0].engine
        if settings.server is not None:
            remote = RemoteEngine(settings.server, stopping, settings.api_key)
            return cls(remote, tokenizer, keep)
        from training.run.upstream_patches import options_for  # noqa: PLC0415 - loads TRL and vLLM

        longest = max(
            len(work.settings.prompts.render(tokenizer, each.prompt))
            + work.draws.sampling.max_tokens
            for work in works
            for each in work.questions
        )
        engine = LocalEngine(
            model,
            settings,
            stopping,
            max_model_len=longest,
            seed=works[0].settings.seed,
            **options_for(works[0].settings.dtype, None),
        )
        return cls(engine, tokenizer, keep)

    def run(self, work: Work, questions: Sequence[Question], bar: "tqdm[Any]") -> None:
        """Complete, grade and write `questions`."""
        from training.rollouts.vllm_engine import format_of  # noqa: PLC0415 - loads vLLM

        if not questions:
            return
        bar.set_description(f"{work.contender.name}, {work.task}")
        open_records(work.path, work.settings, self.engine.made_with)
        contender = work.contender
        form = format_of(self.tokenizer, contender.exit.closing_text, contender.family)
        requests = _requests(work, questions, self.tokenizer, form)
        grading = GradingConfig(grader=work.settings.grader)
        with grader_of(grading, form.family.start, form.family.end) as grader:
            writing = Writing(work.path, self.tokenizer, form.thinking, grader, self.keep)
            writer = Writer(writing, questions, requests, bar.update)
            try:
                self.engine.complete(requests, contender, form, writer.take)
            finally:
                writer.close()


def _requests(
    work: Work, questions: Sequence[Question], tokenizer: Any, form: Format
) -> list[RolloutRequest]:
    """Return `samples` requests for each question, one question after the other."""
    requests = []
    for each in questions:
        ids = work.settings.prompts.render(tokenizer, each.prompt)
        is_open = opens_in_thinking(tokenizer, form.thinking, ids)
        for sample in range(work.draws.samples):
            seed = seed_of(work.settings.seed, work.task, each.id, sample)
            sampling = dataclasses.replace(work.draws.sampling, seed=seed)
            requests.append(RolloutRequest(ids, sampling, is_open))
    return requests


def seed_of(seed: int, task: str, question: str, sample: int) -> int:
    """Return the seed of one completion, which is equal for all contenders."""
    from training.rollouts.seeds import row_seed  # noqa: PLC0415 - loads TRL and vLLM

    return row_seed(seed, task, question, sample)
