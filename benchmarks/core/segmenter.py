"""Speed of the segmenter, compared with a plain regular expression, which cannot stream."""

import random
import re
import statistics
import time
from collections.abc import Callable

from stepgrpo_core import DEFAULT_MARKERS, LEXICONS, StepSegmenter, count_steps

MEGABYTES = 8
CHUNK = 4096
ROUNDS = 7
WORDS = ("the", "sum", "of", "12+7=19", "so", "we", "have", "x", "therefore", "and", "again", "is")


def main() -> None:
    """Print a table of MB/s on one core, with the ratio to the plain expression."""
    text = reasoning_text()
    rows: dict[str, Callable[[], int]] = {
        "bare re.findall, whole text": lambda: bare(text),
        "count_steps, whole text": lambda: count_steps(text),
        f"StepSegmenter, {CHUNK}-character chunks": lambda: streamed(text, DEFAULT_MARKERS),
        "StepSegmenter, lexicon `reflective`": lambda: streamed(text, LEXICONS["reflective"]),
        "count_steps, hostile text": lambda: count_steps("Wai" * (len(text) // 3)),
    }
    times: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(ROUNDS):
        for name, run in rows.items():  # alternating, so that load affects all equally
            started = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - started)
    peer = statistics.median(times["bare re.findall, whole text"])
    print(f"| segmenter, {MEGABYTES} MB, 1 core, median of {ROUNDS} | MB/s | min to max | ratio |")
    print("|---|---|---|---|")
    for name, spent in times.items():
        speeds = sorted(MEGABYTES / each for each in spent)
        print(
            f"| {name} | {statistics.median(speeds):.0f} | {speeds[0]:.0f} to {speeds[-1]:.0f} "
            f"| {peer / statistics.median(spent):.2f} |"
        )


def reasoning_text() -> str:
    """Return reasoning with a marker about every 300 characters."""
    rng = random.Random(0)
    words: list[str] = []
    length = 0
    while length < MEGABYTES * 1_000_000:
        word = "Wait," if rng.random() < 0.015 else rng.choice(WORDS)
        words.append(word)
        length += len(word) + 1
    return " ".join(words)


def bare(text: str) -> int:
    """Segment the complete text with a regular expression, as a script would."""
    return 1 + len(re.findall(r"\b(?:Wait|Alternatively)\b", text))


def streamed(text: str, markers: tuple[str, ...]) -> int:
    """Feed the text as a stream would."""
    segmenter = StepSegmenter(markers)
    for start in range(0, len(text), CHUNK):
        segmenter.feed(text[start : start + CHUNK])
    segmenter.finish()
    return segmenter.steps


if __name__ == "__main__":
    main()
