"""Cost of the step-aware reward: milliseconds per group, and memory that rollouts leave behind.

The times are for counting the steps of 5 completions of 16 000 tokens and rewarding them, without
grading. The memory is that of Python objects after each simulated training step: rollouts over the
scripted engine, groups, rewards.
"""

import argparse
import gc
import math
import random
import statistics
import time
import tracemalloc
from array import array
from collections.abc import Callable, Sequence

from tqdm import tqdm

from benchmarks.core.segmenter import reasoning_text
from benchmarks.shared.arguments import parser_of
from benchmarks.shared.reports import commit, keep, machine, number
from stepgrpo_core import ExitSettings, Group, StepAware, ThinkingFormat, count_steps
from training.rollouts.batch import Format, Request, RolloutRequest, Sampling, run_rollouts
from training.rollouts.scripted_engine import ScriptedEngine, Stream

GROUP = 5
TOKENS = 16_000
CHARACTERS = 4 * TOKENS
WARM_UP = 20  # steps until caches are filled
ROWS = 4 * GROUP  # rollouts per simulated step

START, END, EOS, WAIT, ASK = 1, 2, 3, 4, 5
WORDS = {START: "<think>", END: "</think>", EOS: "", WAIT: " Wait"}
FORM = Format(
    ThinkingFormat(START, END, closing_ids=(END,)),
    encode=lambda _: [ASK],
    texts_after=lambda _: lambda ids: [WORDS.get(token, f" w{token}") for token in ids],
)
SETTINGS = ExitSettings(policy="confidence")


def main() -> None:
    """Print the figures, and write them to outputs/bench/rewards.json."""
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=50, help="timed runs (50)")
    parser.add_argument("--steps", type=int, default=200, help="simulated training steps (200)")
    args = parser.parse_args()
    text = reasoning_text()
    texts = [text[start : start + CHARACTERS] for start in range(0, GROUP * CHARACTERS, CHARACTERS)]
    group = group_of(texts, [TOKENS] * GROUP)
    reward = StepAware()
    runs: dict[str, Callable[[], object]] = {
        "steps and reward": lambda: reward([group_of(texts, [TOKENS] * GROUP)]),
        "steps alone": lambda: group_of(texts, [TOKENS] * GROUP),
        "reward alone": lambda: reward([group]),
    }
    times = timed(runs, args.rounds)
    report(times, sum(group.steps) - GROUP, memory(args.steps), args)


def group_of(texts: Sequence[str], tokens: Sequence[int]) -> Group:
    """Return a group as in training, except for the grades: every other one is correct."""
    size = len(texts)
    return Group(
        correct=[row % 2 == 0 for row in range(size)],
        formatted=[True] * size,
        steps=[count_steps(text) for text in texts],
        tokens=tokens,
        finished=[True] * size,
    )


def timed(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Return the milliseconds of each of `rounds` runs, after one that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for count in range(rounds + 1):
        for name, run in runs.items():  # alternating, so that load affects all equally
            started = time.perf_counter()
            run()
            if count:
                times[name].append(1000 * (time.perf_counter() - started))
    return times


def memory(steps: int) -> list[int]:
    """Return the bytes held by Python before the first of `steps` steps and after each."""
    for step in range(WARM_UP):
        train(step)
    held = array("q", bytes(8 * (steps + 1)))  # allocated here, so that it does not count as growth
    tracemalloc.start()
    for step in tqdm(range(steps + 1), unit="step"):
        train(WARM_UP + step)
        gc.collect()
        held[step], _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return held.tolist()


def train(step: int) -> None:
    """Run one step without a model: truncated rollouts, then groups and rewards."""
    requests = [RolloutRequest((step, row), Sampling(max_tokens=300)) for row in range(ROWS)]
    rollouts = run_rollouts(ScriptedEngine(script), requests, SETTINGS, FORM)
    texts = ["".join(FORM.texts_after(each.prompt_ids)(each.ids)) for each in rollouts]
    lengths = [len(each.ids) for each in rollouts]
    slices = (slice(first, first + GROUP) for first in range(0, ROWS, GROUP))
    StepAware()([group_of(texts[rows], lengths[rows]) for rows in slices])


def script(request: Request) -> Stream:
    """Return reasoning of the prompt, confident from some position on, with a few markers."""
    prompt, generated = request.prompt_ids[:2], request.prompt_ids[2:]
    rng = random.Random(repr(prompt))
    sure_from = rng.randrange(250)
    if generated[-1:] == (ASK,):
        return Stream((50, END), (0.0, math.log(0.99 if len(generated) > sure_from else 0.5)))
    if generated[-1:] == (END,):
        return Stream((30, 31, EOS))
    body = [WAIT if rng.random() < 0.05 else rng.randrange(10, 1000) for _ in range(200)]
    return Stream((START, *body, END, 20, EOS)[len(generated) :])


def report(
    times: dict[str, list[float]], markers: int, held: list[int], args: argparse.Namespace
) -> None:
    """Print the figures and write them."""
    setting = f"1 core of {machine()}, commit {commit()}"
    print(
        f"\n| {GROUP} completions of {TOKENS} tokens ({CHARACTERS} characters), {markers} markers, "
        f"{args.rounds} rounds, {setting} | ms, median | min to max |\n|---|---|---|"
    )
    for name, spent in times.items():
        low, middle, high = map(number, (min(spent), statistics.median(spent), max(spent)))
        print(f"| {name} | {middle} | {low} to {high} |")
    growth = (held[-1] - held[0]) / args.steps
    print(
        f"\nMemory over {args.steps} steps of {ROWS} scripted rollouts: {growth:+.0f} bytes "
        f"per step (from {held[0]} to {held[-1]}, highest {max(held)})"
    )
    keep("rewards", {"setting": setting, "milliseconds": times, "bytes": held})


if __name__ == "__main__":
    main()
