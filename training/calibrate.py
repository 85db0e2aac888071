"""Makes the calibration file from which the server predicts un-exited completion lengths."""

import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path

from vllm import SamplingParams

from stepgrpo_core import Baseline, fit_baseline
from training.offline import Engine

__all__ = ["calibrate", "read_prompts", "write_baseline"]

MOST_UNFINISHED = 0.05  # more would bias the baseline towards short completions


class BadPrompts(ValueError):
    """A prompt file has a line that is no prompt."""


def read_prompts(path: Path) -> list[str]:
    """User messages from a JSONL file of ``{"prompt": "..."}``; names file and line of a fault."""
    prompts: list[str] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            prompts.append(_prompt(json.loads(line)))
        except (ValueError, TypeError, KeyError) as error:
            fault = f"{path}:{number}: {error!r}; each line must be {{'prompt': 'text'}}"
            raise BadPrompts(fault) from error
    return prompts


def calibrate(
    engine: Engine, name: str, messages: Sequence[str], *, samples: int, params: SamplingParams
) -> Baseline:
    """Complete each message `samples` times without an exit, and record the lengths.

    Raises ValueError when more than 5 % of the completions hit `params.max_tokens`.
    """
    prompts = [engine.chat_prompt(message) for message in messages for _ in range(samples)]
    random.Random(0).shuffle(prompts)  # so that batches mix lengths
    runs = engine.generate(prompts, params)
    finished = [(len(run.prompt_ids), len(run.ids)) for run in runs if run.ended]
    unfinished = 1 - len(finished) / len(runs)
    if unfinished > MOST_UNFINISHED:
        raise ValueError(
            f"{unfinished:.0%} of the completions hit max_tokens={params.max_tokens}, which "
            "would bias the baseline; raise it"
        )
    sampling = {"temperature": params.temperature, "top_p": params.top_p}
    return fit_baseline(name, sampling, finished)


def write_baseline(baseline: Baseline, path: Path) -> None:
    """Write the file whole or not at all."""
    lines = _lines(baseline.as_dict()["bins"])
    head = json.dumps({"model": baseline.model, "sampling": dict(baseline.sampling)})[:-1]
    partial = path.with_suffix(".partial")
    partial.write_text(f'{head}, "bins": [\n{lines}\n]}}\n', encoding="utf-8")
    partial.replace(path)


def _lines(bins: Iterable[object]) -> str:
    return ",\n".join(json.dumps(each, separators=(",", ":")) for each in bins)


def _prompt(row: object) -> str:
    if not isinstance(row, dict) or not isinstance(row["prompt"], str):
        raise TypeError("not an object with a text under 'prompt'")
    return row["prompt"]
