"""The file of a calibration's traces, from which a killed calibration goes on."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stepgrpo_core.errors import InvalidSetting
from stepgrpo_core.risk import Exit

__all__ = ["Recorded", "TraceFile"]


@dataclass(frozen=True, slots=True)
class Recorded:
    """One full run, with the exits of all candidates."""

    question: str
    tokens: int
    """Thinking tokens of the full run."""
    right: bool | None
    """The full run's answer is right; None without gold answers."""
    exits: dict[str, tuple[Exit, ...]]
    """Exits of the candidates, in their order, by policy."""
    signals: dict[str, tuple[float | None, ...]]
    """Confidence at the end of each of `exits`; None without an exit, or if the policy has none."""

    @classmethod
    def read(cls, data: dict[str, Any]) -> "Recorded":
        """Return what `as_dict` of a run has given."""
        exits = {name: tuple(Exit(**each) for each in of) for name, of in data["exits"].items()}
        signals = {name: tuple(each) for name, each in data["signals"].items()}
        return cls(**{**data, "exits": exits, "signals": signals})

    def as_dict(self) -> dict[str, Any]:
        """Return the run as data of plain types."""
        return asdict(self)


class TraceFile:
    """JSON lines: the conditions of the traces, then one run a line, in the order of the rows.

    With `resume` the runs that `path` has are kept, otherwise they are replaced. Raises
    InvalidSetting if they were recorded under other conditions.
    """

    def __init__(self, path: Path, conditions: Mapping[str, Any], *, resume: bool) -> None:
        self.path = path
        self.runs: list[Recorded] = []
        """The runs so far."""
        head = json.loads(json.dumps(conditions))
        lines = _whole_lines(path) if resume and path.exists() else []
        if lines:
            self._check(json.loads(lines[0]), head)
            self.runs = [Recorded.read(json.loads(line)) for line in lines[1:]]
        path.write_text("".join(f"{line}\n" for line in lines or [json.dumps(head)]), "utf-8")

    def add(self, runs: Sequence[Recorded]) -> None:
        """Append runs to the file."""
        self.runs += runs
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(f"{json.dumps(each.as_dict())}\n" for each in runs)

    def _check(self, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        other = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
        if other:
            remedy = f"its traces differ in {', '.join(other)}; run without --resume, or as before"
            raise InvalidSetting("--resume", str(self.path), remedy)


def _whole_lines(path: Path) -> list[str]:
    """Return the lines of a file; one that a killed process has not ended is left out."""
    return path.read_text(encoding="utf-8").split("\n")[:-1]
