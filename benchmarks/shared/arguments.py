"""Command lines of the benchmarks."""

import argparse

__all__ = ["parser_of"]


def parser_of(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser whose description is `doc`, with its line breaks."""
    return argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
