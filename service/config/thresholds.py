"""Calibrated thresholds: a file that sets the options of a policy."""

from pathlib import Path

import yaml

from service.config.layers import BadOption, Resolved
from stepgrpo_core import InvalidCalibration
from stepgrpo_core.risk import Thresholds, parse_thresholds

__all__ = ["AGAIN", "read_thresholds", "refusal_of", "with_thresholds"]

AGAIN = "leave it out, or run stepgrpo-train calibrate-exit again"


def refusal_of(path: Path, remedy: str) -> BadOption:
    """Return the error for a file that cannot be used."""
    return BadOption("option", "thresholds", str(path), remedy)


def read_thresholds(path: Path) -> Thresholds:
    """Return the content of a file of ``stepgrpo-train calibrate-exit``; raises BadOption."""
    try:
        return parse_thresholds(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        remedy = str(error.strerror)
    except (yaml.YAMLError, UnicodeDecodeError, InvalidCalibration) as error:
        remedy = f"{' '.join(str(error).split())}; use a file of stepgrpo-train calibrate-exit"
    raise refusal_of(path, remedy)


def with_thresholds(resolved: Resolved, path: Path, found: Thresholds) -> Resolved:
    """Return the options with the calibrated settings; raises BadOption for one that differs."""
    for name, value in found.settings.items():
        if resolved.values.get(name, value) != value:
            remedy = f"{path} was calibrated with {value!r}; {AGAIN}"
            raise resolved.refusal(name, resolved.values[name], remedy)
    sources = {name: (f"file {path}", name) for name in found.settings}
    return Resolved({**resolved.values, **found.settings}, {**sources, **resolved.sources})
