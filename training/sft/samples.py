"""Samples of rejection sampling: files, totals, and the rows to fine-tune on.

Sampling takes hours, so the samples are kept in crash-safe files (`training.run.jsonl`) named
`samples*.jsonl`, with one line per prompt. A prompt with an incomplete line is sampled again. Each
process has its own file and its own prompts; the output folder must be on a shared disk.
"""

import dataclasses
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.rollouts.counters import Counters
from training.run.jsonl import append, check_settings, damaged, open_jsonl, read_jsonl

__all__ = [
    "PromptSamples",
    "Report",
    "Selected",
    "append_samples",
    "counters_of",
    "labeled_rows",
    "open_samples",
    "read_samples",
    "report_of",
    "samples_file",
]

IGNORED = -100  # label without loss


@dataclass(frozen=True, slots=True)
class Selected:
    """A completion to fine-tune on."""

    ids: tuple[int, ...]
    """(L,) sampled ids, including forced tokens."""
    injected: tuple[int, int]
    """Range of the forced tokens in `ids`, end exclusive; empty if there are none."""


@dataclass(frozen=True, slots=True)
class PromptSamples:
    """Samples of one prompt; counts are over its completions."""

    row: int
    """Index of the prompt in the data."""
    prompt_ids: tuple[int, ...]
    kept: tuple[Selected, ...]
    """Selected completions, shortest first."""
    samples: int
    correct: int
    unscored: int
    unfinished: int
    """Number of completions truncated by the token limit."""
    tokens: int
    probe_tokens: int
    discarded_tokens: int


def labeled_rows(
    samples: Sequence[PromptSamples], *, train_injected: bool, max_rows: int | None, seed: int
) -> list[dict[str, list[int]]]:
    """Return rows for fine-tuning: `input_ids` and `labels`, (P + L,) each.

    Loss is on the generated tokens alone, from the first after the prompt to the end of turn. TRL's
    ``{% generation %}`` marks are not used: they also include the line end after the end of turn
    (Qwen) or the role (gpt-oss, DeepSeek-R1's distillations).

    More than `max_rows` rows are sampled down at random; the order of the data is kept.
    """
    rows = [
        {
            "input_ids": [*each.prompt_ids, *kept.ids],
            "labels": [IGNORED] * len(each.prompt_ids)
            + _labels(kept, train_injected=train_injected),
        }
        for each in samples
        for kept in each.kept
    ]
    if max_rows is None or len(rows) <= max_rows:
        return rows
    chosen = random.Random(f"{seed}:max_rows").sample(range(len(rows)), max_rows)
    return [rows[index] for index in sorted(chosen)]


def _labels(kept: Selected, *, train_injected: bool) -> list[int]:
    masked = range(0) if train_injected else range(*kept.injected)
    return [IGNORED if index in masked else token for index, token in enumerate(kept.ids)]


def samples_file(output: Path, rank: int, processes: int) -> Path:
    """Return the file of process `rank`."""
    return output / ("samples.jsonl" if processes == 1 else f"samples-{rank}.jsonl")


def open_samples(path: Path, settings: Mapping[str, Any]) -> None:
    """Prepare `path` for appending; a new file starts with the `settings`."""
    open_jsonl(path, settings)


def read_samples(output: Path, settings: Mapping[str, Any]) -> list[PromptSamples]:
    """Return the samples of all processes in the order of the data.

    Raises ValueError for a damaged line, and for a file with other settings.
    """
    found = {}
    for path in sorted(output.glob("samples*.jsonl")):
        for number, entry in read_jsonl(path):
            if number == 1:
                check_settings(path, entry, settings, "sampled")
                continue
            try:
                sampled = _parse(entry)
            except (ValueError, KeyError, TypeError) as error:
                raise damaged(path, number, error) from error
            found[sampled.row] = sampled
    return [found[row] for row in sorted(found)]


def append_samples(path: Path, samples: Sequence[PromptSamples]) -> None:
    """Append samples; they are on the disk when this returns."""
    append(path, [dataclasses.asdict(each) for each in samples])


def _parse(entry: Mapping[str, Any]) -> PromptSamples:
    kept = tuple(
        Selected(tuple(each["ids"]), (each["injected"][0], each["injected"][1]))
        for each in entry["kept"]
    )
    return PromptSamples(**{**entry, "prompt_ids": tuple(entry["prompt_ids"]), "kept": kept})


@dataclass(frozen=True, slots=True)
class Report:
    """Totals of rejection sampling."""

    prompts: int
    samples: int
    correct_share: float
    """Share of the scored completions."""
    unscored: int
    unfinished: int
    mean_tokens: float
    kept: int
    kept_mean_tokens: float
    without_correct: int
    """Number of prompts without a correct completion."""

    def lines(self) -> list[str]:
        """Return the totals as text lines, for the log and the model card."""
        first = f"{self.prompts} prompts, {self.samples} completions"
        scored = f"{self.correct_share:.1%} of the scored are correct, {self.unscored} unscored"
        length = f"{self.kept_mean_tokens:.0f} tokens on average; all have {self.mean_tokens:.0f}"
        return [
            f"{first}: {scored}, {self.unfinished} unfinished",
            f"kept {self.kept} completions of {length}",
            f"{self.without_correct} prompts have no correct completion",
        ]


def report_of(samples: Sequence[PromptSamples]) -> Report:
    """Return the totals over all prompts; means of empty lists are 0."""
    count = sum(each.samples for each in samples)
    unscored = sum(each.unscored for each in samples)
    lengths = [len(kept.ids) for each in samples for kept in each.kept]
    return Report(
        prompts=len(samples),
        samples=count,
        correct_share=sum(each.correct for each in samples) / max(count - unscored, 1),
        unscored=unscored,
        unfinished=sum(each.unfinished for each in samples),
        mean_tokens=sum(each.tokens for each in samples) / max(count, 1),
        kept=len(lengths),
        kept_mean_tokens=sum(lengths) / max(len(lengths), 1),
        without_correct=sum(not each.correct for each in samples),
    )


def counters_of(samples: Sequence[PromptSamples]) -> Counters:
    """Return the totals for the seals of checkpoints."""
    return Counters(
        rollouts=sum(each.samples for each in samples),
        completion_tokens=sum(each.tokens for each in samples),
        probe_tokens=sum(each.probe_tokens for each in samples),
        discarded_tokens=sum(each.discarded_tokens for each in samples),
    )
