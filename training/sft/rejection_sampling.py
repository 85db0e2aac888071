"""Rejection sampling for DEER+SFT: complete every prompt several times with exits, keep the
shortest correct completions.

DEER is arXiv 2504.15895; how many completions its use as a baseline drew was not found.
"""

import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState
from tqdm import tqdm

from stepgrpo_core import ExitReason
from stepgrpo_core.families.thinking import opens_in_thinking
from training.config.schema import RunConfig, prompt_template
from training.data.dataset import Row
from training.grading import Grader, GraderBroken, Verdict
from training.rollouts.batch import Format, Rollout, RolloutEngine, RolloutRequest, run_rollouts
from training.rollouts.seeds import row_seed
from training.rollouts.types import RolloutFailed
from training.rollouts.vllm_engine import VllmEngine, format_of
from training.run.checkpoints import RunStopped, StopOnSignal
from training.run.loading import load_tokenizer
from training.run.own_process import in_own_process
from training.sft.samples import (
    Kept,
    Sampled,
    append_samples,
    open_samples,
    read_samples,
    report_of,
    samples_file,
)
from training.sft.sampling import grpo_setting, load_llm, sampling_of

__all__ = ["Sampler", "made_by", "sample_in_chunks", "sample_prompts", "select"]

CHUNK = 1024  # completions between two writes: enough that the slow last ones cost little
NOT_TAUGHT = {
    ExitReason.EOS_IN_THINKING,
    ExitReason.CLIENT,
    ExitReason.LENGTH,
    ExitReason.NONE,
}
"""Endings that the model must not learn, even where the answer is right."""


def sample_prompts(config: RunConfig, rows: Sequence[Row], stop: StopOnSignal) -> list[Sampled]:
    """The results for all rows, from the files where those hold them; prints the report.

    With several processes each samples every n-th row on its own device. Raises RunStopped.
    """
    output, state = Path(config.output), PartialState()
    settings = made_by(config)
    done = {each.row for each in read_samples(output, settings)}
    path = samples_file(output, state.process_index, state.num_processes)
    open_samples(path, settings)
    mine = range(state.process_index, len(rows), state.num_processes)
    left = {place: rows[place] for place in mine if place not in done}
    print(f"{len(mine) - len(left)} of {len(mine)} prompts are sampled already", flush=True)
    if left:
        in_own_process(_sample, config, left, path, stop=stop)
    if stop.signal is not None:
        raise RunStopped(f"{stop.signal.name}: go on with --resume, {output} keeps the samples")
    state.wait_for_everyone()
    samples = read_samples(output, settings)
    _check(samples, len(rows), output)
    if state.is_main_process:
        print(*report_of(samples).lines(), sep="\n", flush=True)
    return samples


def _check(samples: Sequence[Sampled], rows: int, output: Path) -> None:
    if len(samples) != rows:
        raise RunStopped(
            f"{output} holds samples of {len(samples)} prompts instead of {rows}: all processes "
            "must write to one disk, and the data must not change between runs"
        )
    if not any(each.kept for each in samples):
        raise RunStopped(
            "no completion was kept, so there is nothing to learn from: "
            f"{report_of(samples).lines()[0]}; raise trl.max_completion_length, or see whether "
            "what the model boxes can equal the answers of the data"
        )


def _sample(
    config: RunConfig, rows: Mapping[int, Row], path: Path, stopping: Callable[[], bool]
) -> None:
    """Sample `rows` on an engine in this process."""
    assert config.sft is not None
    tokenizer, grading = load_tokenizer(config), config.grading
    form = format_of(tokenizer, config.rollout.exit.closing_text, config.model.choice)
    size = max(CHUNK // config.sft.samples, 1)
    try:
        engine = VllmEngine(load_llm(config, config.model.name, config.model.revision).llm_engine)
        start, end = form.family.start, form.family.end
        with Grader(**dataclasses.asdict(grading), start=start, end=end) as grader:
            sampler = Sampler(config, tokenizer, form, engine, grader)
            sample_in_chunks(rows, size, sampler, path, stopping)
    except (RolloutFailed, GraderBroken, OSError) as error:
        raise RunStopped(f"{error}; go on with --resume, {path} keeps the samples") from error


def sample_in_chunks(
    rows: Mapping[int, Row],
    size: int,
    sample: Callable[[Mapping[int, Row]], list[Sampled]],
    path: Path,
    stopping: Callable[[], bool],
) -> None:
    """Append the results for `rows`, `size` prompts at a time, until done or `stopping`."""
    places, started = list(rows), time.monotonic()
    for start in range(0, len(places), size):
        if stopping():
            return
        chunk = sample({place: rows[place] for place in places[start : start + size]})
        append_samples(path, chunk)
        done = start + len(chunk)
        left = (time.monotonic() - started) / done * (len(places) - done)
        kept = sum(len(each.kept) for each in chunk)
        print(
            f"sampled {done} of {len(places)} prompts, {kept} completions kept of the last "
            f"{len(chunk)} prompts, about {left / 60:.0f} min left",
            flush=True,
        )


@dataclass(frozen=True, slots=True)
class Sampler:
    """Samples, grades and selects for some prompts at a time."""

    config: RunConfig
    tokenizer: Any
    form: Format
    engine: RolloutEngine
    grader: Grader

    def __call__(self, rows: Mapping[int, Row]) -> list[Sampled]:
        """One result per row, in order; keys are places in the data."""
        assert self.config.sft is not None
        count, keep = self.config.sft.samples, self.config.sft.keep
        jobs = [job for place, row in rows.items() for job in self._jobs(place, row, count)]
        rollouts = self._complete(jobs)
        texts = self.tokenizer.batch_decode(
            [each.ids for each in rollouts], skip_special_tokens=True
        )
        golds = [row.answer for row in rows.values() for _ in range(count)]
        # One chat template: all of its prompts open the thinking, or none.
        verdicts = self.grader.grade(texts, golds, thinking_open=jobs[0].thinking_open)
        groups = [slice(start, start + count) for start in range(0, len(jobs), count)]
        return [
            _sampled(place, rollouts[group], verdicts[group], keep)
            for place, group in zip(rows, groups, strict=True)
        ]

    def _jobs(self, place: int, row: Row, count: int) -> list[RolloutRequest]:
        ids = prompt_template(self.config).render(self.tokenizer, row.prompt)
        is_open = opens_in_thinking(self.tokenizer, self.form.thinking, ids)
        sampling = sampling_of(self.config)
        seeds = (row_seed(self.config.seed, "sft", place, sample) for sample in range(count))
        return [
            RolloutRequest(ids, dataclasses.replace(sampling, seed=seed), is_open) for seed in seeds
        ]

    def _complete(self, jobs: Sequence[RolloutRequest]) -> list[Rollout]:
        rollout = self.config.rollout
        settings = dataclasses.replace(rollout.exit, policy="confidence")
        with tqdm(total=len(jobs), desc="rollouts", leave=False, disable=None) as bar:
            try:
                return run_rollouts(
                    self.engine,
                    jobs,
                    settings,
                    self.form,
                    probing=rollout.probing,
                    finished=lambda _: bar.update(),
                )
            except Exception as error:
                raise RolloutFailed(f"vLLM failed while generating: {error!r}") from error


def select(rollouts: Sequence[Rollout], verdicts: Sequence[Verdict], keep: int) -> list[Rollout]:
    """The `keep` shortest of the correct completions that ended by an exit or by themselves.

    Shortest first, equal lengths in the order of sampling. Equal completions count once.
    """
    right = {
        rollout.ids: rollout
        for rollout, verdict in zip(rollouts, verdicts, strict=True)
        if verdict.correct and rollout.ended and rollout.outcome.reason not in NOT_TAUGHT
    }
    return sorted(right.values(), key=lambda rollout: len(rollout.ids))[:keep]


def _sampled(
    place: int, rollouts: Sequence[Rollout], verdicts: Sequence[Verdict], keep: int
) -> Sampled:
    return Sampled(
        row=place,
        prompt_ids=rollouts[0].prompt_ids,
        kept=tuple(Kept(each.ids, _injected(each)) for each in select(rollouts, verdicts, keep)),
        samples=len(rollouts),
        correct=sum(each.correct is True for each in verdicts),
        unscored=sum(each.correct is None for each in verdicts),
        unfinished=sum(not each.ended for each in rollouts),
        tokens=sum(len(each.ids) for each in rollouts),
        probe_tokens=sum(each.probe_tokens for each in rollouts),
        discarded_tokens=sum(each.discarded_tokens for each in rollouts),
    )


def _injected(rollout: Rollout) -> tuple[int, int]:
    count = sum(rollout.injected)
    start = rollout.injected.index(True) if count else 0
    return start, start + count  # they stand together


def made_by(config: RunConfig) -> dict[str, Any]:
    """All that the results depend on, as JSON gives it back."""
    assert config.sft is not None
    settings = {
        "model": config.model.name,
        "revision": config.model.revision,
        "data": dataclasses.asdict(config.data),
        "exit": dataclasses.asdict(config.rollout.exit),
        "sampling": dataclasses.asdict(sampling_of(config)),
        "chat_template_kwargs": grpo_setting(config, "chat_template_kwargs"),
        "samples": config.sft.samples,
        "keep": config.sft.keep,
        "seed": config.seed,
    }
    made: dict[str, Any] = json.loads(json.dumps(settings, default=str))
    return made
