"""Creates the calibration file, from which the server predicts completion lengths without exits."""

import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path

from vllm import SamplingParams

from stepgrpo_core import Baseline, ExitSettings, fit_baseline
from stepgrpo_core.families.table import apply_family
from stepgrpo_core.policies import Induce
from stepgrpo_core.policies.confidence import confidence_of
from stepgrpo_core.savings.baseline import Conditions, Run
from training.files import write_text
from training.rollouts.offline import Engine, Generation

__all__ = ["calibrate", "write_baseline"]

MOST_UNFINISHED = 0.05  # more would bias the baseline towards short completions


def calibrate(
    engine: Engine,
    name: str,
    messages: Sequence[str],
    *,
    samples: int,
    params: SamplingParams,
    trials: bool = True,
) -> Baseline:
    """Complete each message `samples` times without exits, and fit a baseline to the lengths.

    It also records where steps begin and, with `trials`, the confidence of a trial answer there.
    Raises ValueError if more than 5 % of the completions reach `params.max_tokens`.
    """
    generations = complete(engine, messages, samples=samples, params=params)
    settings = apply_family(ExitSettings(), engine.form.family)
    sampling = {"temperature": params.temperature, "top_p": params.top_p}
    runs = record(engine, generations, settings, trials=trials)
    return fit_baseline(name, sampling, runs, Conditions.of(settings, trials=trials))


def complete(
    engine: Engine, messages: Sequence[str], *, samples: int, params: SamplingParams
) -> list[Generation]:
    """Return `samples` completions of each message, without those that reach `params.max_tokens`.

    Raises ValueError if those are more than 5 %.
    """
    prompts = [engine.chat_prompt(message) for message in messages for _ in range(samples)]
    random.Random(0).shuffle(prompts)  # so that batches mix lengths
    runs = engine.generate(prompts, params)
    finished = [run for run in runs if run.ended]
    unfinished = 1 - len(finished) / len(runs)
    if unfinished > MOST_UNFINISHED:
        raise ValueError(
            f"{unfinished:.0%} of the completions hit max_tokens={params.max_tokens}, which "
            "would bias the baseline; raise it"
        )
    return finished


def record(
    engine: Engine, generations: Sequence[Generation], settings: ExitSettings, *, trials: bool
) -> list[Run]:
    """Return the data of completions that a calibration keeps."""
    starts = [engine.step_starts(each, settings.markers) for each in generations]
    asked = _confidences(engine, generations, starts, settings) if trials else {}
    return [
        Run(
            len(each.prompt_ids),
            len(each.ids),
            starts[index],
            tuple(asked.get((index, place)) for place in starts[index]) if trials else None,
        )
        for index, each in enumerate(generations)
    ]


def _confidences(
    engine: Engine,
    generations: Sequence[Generation],
    starts: Sequence[Sequence[int]],
    settings: ExitSettings,
) -> dict[tuple[int, int], float]:
    """Return confidences of trial answers by generation index and position, if the context has
    room for them."""
    spec = Induce(settings.inducing_prompt, settings.probe_max_tokens)
    asked = [
        (index, place)
        for index, each in enumerate(generations)
        for place in starts[index]
        if engine.has_room(each, place, spec)
    ]
    chosen, places = [generations[index] for index, _ in asked], [place for _, place in asked]
    readings = engine.probe(chosen, places, spec)
    found = [confidence_of(reading.trial, settings) for reading in readings]
    return dict(zip(asked, found, strict=True))


def write_baseline(baseline: Baseline, path: Path) -> None:
    """Write the calibration file atomically."""
    data = baseline.as_dict()
    lines = _lines(data.pop("bins"))
    head = json.dumps(data, ensure_ascii=False)[:-1]
    write_text(path, f'{head}, "bins": [\n{lines}\n]}}\n')


def _lines(bins: Iterable[object]) -> str:
    return ",\n".join(json.dumps(each, separators=(",", ":")) for each in bins)
