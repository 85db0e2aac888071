"""Which family a model is of, where the trainer's commands are told."""

import argparse
from pathlib import Path
from typing import Any

import yaml

from stepgrpo_core.errors import InvalidSetting
from stepgrpo_core.families.table import FamilyChoice

__all__ = ["add_flags", "choice_of"]


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The server's flags of families."""
    parser.add_argument(
        "--exit-family",
        metavar="NAME",
        help="Family of the models: how they write thinking, as for stepgrpo-serve. Default: their "
        "tokenizers tell.",
    )
    parser.add_argument(
        "--exit-config",
        type=Path,
        metavar="FILE",
        help="YAML file of the server, of which only its family and families are read.",
    )


def choice_of(args: argparse.Namespace) -> FamilyChoice:
    """What the flags say; raises InvalidSetting."""
    path: Path | None = args.exit_config
    file: Any = {} if path is None else yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    if not isinstance(file, dict):
        raise InvalidSetting("--exit-config", str(path), "write names of options with their values")
    return FamilyChoice(args.exit_family or file.get("family"), file.get("families") or {})
