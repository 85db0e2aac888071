"""Training rows from several sources, without duplicates, evaluation problems and long prompts.

Every omitted row is counted, and some are shown as examples; none is dropped silently.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from stepgrpo_core import InvalidSetting
from training.data.decontamination import OverlapIndex, Words, words
from training.data.sources import BadRow, Row, Source, SourceUnavailable, read_source

__all__ = [
    "BadRow",
    "DataConfig",
    "DataReport",
    "NoRows",
    "Removed",
    "Row",
    "Source",
    "SourceReport",
    "SourceUnavailable",
    "load_rows",
]

EXAMPLES = 3  # examples per reason
Reason = Literal["duplicate", "contradicting", "overlapping", "overlong"]


class NoRows(ValueError):
    """No rows are left to train on; the message is the report."""


@dataclass(frozen=True, slots=True)
class DataConfig:
    """Settings of the training data. Raises InvalidSetting."""

    train: tuple[Source, ...]
    """Sources of training problems, in this order; of duplicates the first stays."""
    exclude: tuple[Source, ...] = ()
    """Evaluation sets: training problems that overlap with them are left out."""
    prompt_suffix: str = ""
    """Put behind every training prompt, such as the request for a box; write its leading space or
    line break. Not compared for overlap."""
    system_prompt: str | None = None
    """Text of a system message in front of every prompt; None: the chat template's own."""
    ngram: int = 13
    """Problems overlap when they share a run of this many words; shorter ones when all is equal."""
    max_prompt_tokens: int = 1024
    """Longer prompts, with the suffix, are left out."""
    deduplicate: bool = True
    """Leave out prompts that are equal but for case, white space and punctuation at word ends."""

    def __post_init__(self) -> None:
        if not self.train:
            raise InvalidSetting("train", self.train, "name at least one source")
        for name in ("ngram", "max_prompt_tokens"):
            if getattr(self, name) < 1:
                raise InvalidSetting(name, getattr(self, name), "use at least 1")


@dataclass(frozen=True, slots=True)
class SourceReport:
    """Counts of one source's rows: `read` is the sum of `kept` and the reasons below it."""

    source: str
    read: int
    kept: int
    duplicates: int
    """Rows whose prompt and answer are equal to earlier ones."""
    contradicting: int
    """Rows whose prompt is equal to an earlier one, with another answer: one of the two is
    wrong."""
    overlapping: int
    overlong: int


@dataclass(frozen=True, slots=True)
class Removed:
    """A row that was omitted."""

    row: Row
    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class DataReport:
    """Counts of the rows that were read and omitted."""

    train: tuple[SourceReport, ...]
    exclude: tuple[tuple[str, int], ...]
    """Each evaluation set and its number of rows."""
    examples: tuple[Removed, ...]
    """The first few of each reason."""

    def lines(self) -> list[str]:
        """Return the report as text."""
        return [
            *(_source_line(each) for each in self.train),
            *(f"{name}: {count} read to be excluded" for name, count in self.exclude),
            *(
                f"  {each.row.place} {each.reason}, {each.detail}: {_excerpt(each.row.prompt)}"
                for each in self.examples
            ),
        ]


def load_rows(
    config: DataConfig, count_tokens: Callable[[str], int]
) -> tuple[list[Row], DataReport]:
    """Return the rows to train on, their prompts with the suffix, and the report.

    `count_tokens` is called with whole prompts. Raises BadRow, SourceUnavailable and NoRows.
    """
    excluded = [list(read_source(source)) for source in config.exclude]
    texts = ((row.place, row.prompt) for rows in excluded for row in rows)
    sieve = _Sieve(config, count_tokens, OverlapIndex.build(texts, config.ngram))
    kept: list[Row] = []
    reports: list[SourceReport] = []
    examples: list[Removed] = []
    for source in config.train:
        counts: Counter[str] = Counter()
        for result in sieve.sift(read_source(source)):
            if isinstance(result, Row):
                kept.append(result)
                counts["kept"] += 1
            else:
                counts[result.reason] += 1
                if sum(each.reason == result.reason for each in examples) < EXAMPLES:
                    examples.append(result)
        reports.append(_source_report(source, counts))
    sizes = tuple((s.name, len(rows)) for s, rows in zip(config.exclude, excluded, strict=True))
    report = DataReport(tuple(reports), sizes, tuple(examples))
    if not kept:
        raise NoRows("no row is left to train on:\n" + "\n".join(report.lines()))
    return kept, report


class _Sieve:
    """Keeps or omits rows one by one; remembers every prompt that it has seen."""

    def __init__(
        self, config: DataConfig, count_tokens: Callable[[str], int], index: OverlapIndex
    ) -> None:
        self._config = config
        self._count_tokens = count_tokens
        self._index = index
        self._first: dict[Words, Row] = {}

    def sift(self, rows: Iterable[Row]) -> Iterator[Row | Removed]:
        for row in rows:
            yield self._decide(row, words(row.prompt))

    def _decide(self, row: Row, spelled: Words) -> Row | Removed:
        if self._config.deduplicate:
            first = self._first.setdefault(spelled, row)
            if first is not row:
                return _repeated(row, first)
        overlap = self._index.find(spelled)
        if overlap:
            run, place = overlap
            return Removed(row, "overlapping", f"shares {' '.join(run)!r} with {place}")
        asked = replace(row, prompt=row.prompt + self._config.prompt_suffix)
        tokens = self._count_tokens(asked.prompt)
        if tokens > self._config.max_prompt_tokens:
            limit = self._config.max_prompt_tokens
            return Removed(row, "overlong", f"{tokens} tokens are over max_prompt_tokens={limit}")
        return asked


def _repeated(row: Row, first: Row) -> Removed:
    if row.answer == first.answer:
        return Removed(row, "duplicate", f"the same as {first.place}")
    detail = f"answer {row.answer!r}, but {first.answer!r} in {first.place}, which stays"
    return Removed(row, "contradicting", detail)


def _source_report(source: Source, counts: Counter[str]) -> SourceReport:
    return SourceReport(
        source=source.name,
        read=counts.total(),
        kept=counts["kept"],
        duplicates=counts["duplicate"],
        contradicting=counts["contradicting"],
        overlapping=counts["overlapping"],
        overlong=counts["overlong"],
    )


def _source_line(each: SourceReport) -> str:
    return (
        f"{each.source}: {each.read} read, {each.kept} kept; left out {each.duplicates} "
        f"duplicates, {each.contradicting} contradicting, {each.overlapping} overlapping, "
        f"{each.overlong} over-long"
    )


def _excerpt(prompt: str) -> str:
    line = " ".join(prompt.split())
    return line if len(line) <= 80 else f"{line[:77]}..."
