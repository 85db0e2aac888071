"""Rejection sampling for DEER+SFT: sample every prompt several times with exits, and keep the
shortest correct completions.

DEER is arXiv 2504.15895; the number of samples in published uses as a baseline was not found.
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
from training.grading import GraderBroken, Grades, Verdict, grader_of
from training.rollouts.batch import Format, Rollout, RolloutEngine, RolloutRequest, run_rollouts
from training.rollouts.seeds import row_seed
from training.rollouts.texts import text_of
from training.rollouts.types import RolloutFailed
from training.rollouts.vllm_engine import VllmEngine, format_of
from training.run.checkpoints import RunStopped, StopOnSignal
from training.run.loading import load_tokenizer
from training.run.processes import run_in_subprocess
from training.sft.samples import (
    PromptSamples,
    Selected,
    append_samples,
    open_samples,
    read_samples,
    report_of,
    samples_file,
)
from training.sft.sampling import grpo_setting, load_llm, sampling_of

__all__ = ["Sampler", "sample_in_chunks", "sample_prompts", "sampling_settings", "select"]

CHUNK = 1024  # completions between two writes; large, so that slow last ones matter little
EXCLUDED_REASONS = {
    ExitReason.EOS_IN_THINKING,
    ExitReason.CLIENT,
    ExitReason.LENGTH,
    ExitReason.NONE,
}
"""Exit reasons that are not trained on, even if the answer is correct."""


def sample_prompts(
    config: RunConfig, rows: Sequence[Row], stop: StopOnSignal
) -> list[PromptSamples]:
    """Return the samples of all rows, resuming from files, and print the report.

    With n processes each samples every n-th row on its own device. Raises RunStopped.
    """
    output, state = Path(config.output), PartialState()
    settings = sampling_settings(config)
    done = {each.row for each in read_samples(output, settings)}
    path = samples_file(output, state.process_index, state.num_processes)
    open_samples(path, settings)
    mine = range(state.process_index, len(rows), state.num_processes)
    left = {place: rows[place] for place in mine if place not in done}
    print(f"{len(mine) - len(left)} of {len(mine)} prompts are already sampled", flush=True)
    if left:
        run_in_subprocess(_sample, config, left, path, stop=stop)
    if stop.signal is not None:
        raise RunStopped(f"{stop.signal.name}: continue with --resume, {output} keeps the samples")
    state.wait_for_everyone()
    samples = read_samples(output, settings)
    _check(samples, len(rows), output)
    if state.is_main_process:
        print(*report_of(samples).lines(), sep="\n", flush=True)
    return samples


def _check(samples: Sequence[PromptSamples], rows: int, output: Path) -> None:
    if len(samples) != rows:
        raise RunStopped(
            f"{output} holds samples of {len(samples)} prompts instead of {rows}: all processes "
            "must write to the same disk, and the data must not change between runs"
        )
    if not any(each.kept for each in samples):
        raise RunStopped(
            "no completion was kept, so there is nothing to learn from: "
            f"{report_of(samples).lines()[0]}; raise trl.max_completion_length, or check that the "
            "model's boxed answers have the format of the data's answers"
        )


def _sample(
    config: RunConfig, rows: Mapping[int, Row], path: Path, stopping: Callable[[], bool]
) -> None:
    """Sample `rows` on an engine in this process."""
    assert config.sft is not None
    tokenizer = load_tokenizer(config)
    form = format_of(tokenizer, config.rollout.exit.closing_text, config.model.choice)
    size = max(CHUNK // config.sft.samples, 1)
    try:
        engine = VllmEngine(load_llm(config, config.model.name, config.model.revision).llm_engine)
        start, end = form.family.start, form.family.end
        with grader_of(config.grading, start, end) as grader:
            sampler = Sampler(config, tokenizer, form, engine, grader)
            sample_in_chunks(rows, size, sampler, path, stopping)
    except (RolloutFailed, GraderBroken, OSError) as error:
        raise RunStopped(f"{error}; continue with --resume, {path} keeps the samples") from error


def sample_in_chunks(
    rows: Mapping[int, Row],
    size: int,
    sample: Callable[[Mapping[int, Row]], list[PromptSamples]],
    path: Path,
    stopping: Callable[[], bool],
) -> None:
    """Sample `rows` and append the results, `size` prompts at a time, until done or `stopping`."""
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
    """Samples some prompts at a time, grades the completions and selects from them."""

    config: RunConfig
    tokenizer: Any
    form: Format
    engine: RolloutEngine
    grader: Grades

    def __call__(self, rows: Mapping[int, Row]) -> list[PromptSamples]:
        """Return one result per row, in order; keys are indices in the data."""
        assert self.config.sft is not None
        count, keep = self.config.sft.samples, self.config.sft.keep
        requests = [
            request for place, row in rows.items() for request in self._requests(place, row, count)
        ]
        rollouts = self._complete(requests)
        texts = [text_of(each, self.tokenizer, self.form.thinking) for each in rollouts]
        golds = [row.answer for row in rows.values() for _ in range(count)]
        # All prompts have the same chat template, so all or none open the thinking.
        verdicts = self.grader.grade(texts, golds, thinking_open=requests[0].thinking_open)
        groups = [slice(start, start + count) for start in range(0, len(requests), count)]
        return [
            _sampled(place, rollouts[group], verdicts[group], keep)
            for place, group in zip(rows, groups, strict=True)
        ]

    def _requests(self, place: int, row: Row, count: int) -> list[RolloutRequest]:
        ids = prompt_template(self.config).render(self.tokenizer, row.prompt)
        is_open = opens_in_thinking(self.tokenizer, self.form.thinking, ids)
        sampling = sampling_of(self.config)
        seeds = (row_seed(self.config.seed, "sft", place, sample) for sample in range(count))
        return [
            RolloutRequest(ids, dataclasses.replace(sampling, seed=seed), is_open) for seed in seeds
        ]

    def _complete(self, requests: Sequence[RolloutRequest]) -> list[Rollout]:
        rollout = self.config.rollout
        settings = dataclasses.replace(rollout.exit, policy="confidence")
        with tqdm(total=len(requests), desc="rollouts", leave=False, disable=None) as bar:
            try:
                return run_rollouts(
                    self.engine,
                    requests,
                    settings,
                    self.form,
                    probing=rollout.probing,
                    finished=lambda _: bar.update(),
                )
            except Exception as error:
                raise RolloutFailed(f"vLLM failed while generating: {error!r}") from error


def select(rollouts: Sequence[Rollout], verdicts: Sequence[Verdict], keep: int) -> list[Rollout]:
    """Return the `keep` shortest correct completions whose thinking was closed, shortest first.

    Ties keep the order of sampling; identical completions count once.
    """
    right = {
        rollout.ids: rollout
        for rollout, verdict in zip(rollouts, verdicts, strict=True)
        if verdict.correct and rollout.ended and rollout.outcome.reason not in EXCLUDED_REASONS
    }
    return sorted(right.values(), key=lambda rollout: len(rollout.ids))[:keep]


def _sampled(
    place: int, rollouts: Sequence[Rollout], verdicts: Sequence[Verdict], keep: int
) -> PromptSamples:
    return PromptSamples(
        row=place,
        prompt_ids=rollouts[0].prompt_ids,
        kept=tuple(
            Selected(each.ids, _injected(each)) for each in select(rollouts, verdicts, keep)
        ),
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
    return start, start + count  # forced tokens are contiguous


def sampling_settings(config: RunConfig) -> dict[str, Any]:
    """Return all settings that the samples depend on, as parsed from JSON."""
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
        "grader": config.grading.grader,
        "seed": config.seed,
    }
    made: dict[str, Any] = json.loads(json.dumps(settings, default=str))
    return made
