"""The flags that name the model family in commands without a run's configuration."""

import argparse
from pathlib import Path
from typing import Any

import yaml

from stepgrpo_core.docstrings import field_docs
from stepgrpo_core.errors import InvalidSetting
from stepgrpo_core.families.table import FamilyChoice
from training.config.schema import ModelConfig

__all__ = ["add_flags", "choice_of"]


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the server that name or describe a family."""
    parser.add_argument(
        "--exit-family",
        metavar="NAME",
        help=field_docs(ModelConfig)["family"],
    )
    parser.add_argument(
        "--exit-config",
        type=Path,
        metavar="FILE",
        help="YAML file of the server; only its family and families are read.",
    )


def choice_of(args: argparse.Namespace) -> FamilyChoice:
    """Return the family that the flags choose; raises InvalidSetting."""
    path: Path | None = args.exit_config
    file: Any = {} if path is None else yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    if not isinstance(file, dict):
        raise InvalidSetting("--exit-config", str(path), "write names of options with their values")
    return FamilyChoice(args.exit_family or file.get("family"), file.get("families") or {})
