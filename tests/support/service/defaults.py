"""The server's defaults as read from flags, environment and a file."""

import argparse
from pathlib import Path

from service.config.server import Defaults, add_flags, read_defaults


def read(
    *flags: str, environment: dict[str, str] | None = None, file: str | None = None, at: Path
) -> Defaults:
    """Return the defaults of a command line, an environment and a YAML file."""
    parser = argparse.ArgumentParser()
    add_flags(parser)
    config: tuple[str, ...] = ()
    if file is not None:
        (at / "exit.yaml").write_text(file, encoding="utf-8")
        config = ("--exit-config", str(at / "exit.yaml"))
    return read_defaults(parser.parse_args([*config, *flags]), environment or {})
