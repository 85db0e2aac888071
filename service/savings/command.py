"""`stepgrpo-serve savings`: what a running server, or the file of its sums, says was saved."""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import httpx

from service.savings.report import as_csv, as_json, as_table, savings_rows
from service.savings.store import SumStore

__all__ = ["PATH", "savings_command"]

PATH = "/v1/stepgrpo/savings"


def savings_command(arguments: list[str]) -> None:
    """Print the savings; ends with one clear line where there are none to be had."""
    args = _parser().parse_args(arguments)
    try:
        print(_from_file(args.state, args.format) if args.state else _from_server(args))
    except (OSError, ValueError, httpx.HTTPError) as error:
        sys.exit(f"stepgrpo-serve savings: {error}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="stepgrpo-serve savings",
        description="Print what exits saved, by model and policy, as a server's holdout shows "
        "(--exit-holdout). The API key comes from OPENAI_API_KEY.",
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--url", default="http://localhost:8000", help="the server (%(default)s)")
    source.add_argument("--state", type=Path, help="the file of --exit-state, without a server")
    parser.add_argument("--format", choices=("table", "json", "csv"), default="table")
    return parser


def _from_file(path: Path, form: str) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there; it is made by --exit-state")
    store = SumStore(path)
    try:
        rows = savings_rows(store.read())
    finally:
        store.close()
    return as_csv(rows) if form == "csv" else _shown(as_json(rows), form)


def _from_server(args: argparse.Namespace) -> str:
    key = os.environ.get("OPENAI_API_KEY")
    answer = httpx.get(
        args.url.rstrip("/") + PATH,
        params={"format": "csv"} if args.format == "csv" else {},
        headers={"authorization": f"Bearer {key}"} if key else {},
        timeout=30,
    )
    if answer.is_error:
        raise ValueError(f"{args.url} answered {answer.status_code}: {answer.text[:500]}")
    return answer.text if args.format == "csv" else _shown(answer.json(), args.format)


def _shown(data: dict[str, Any], form: str) -> str:
    return json.dumps(data, indent=2) if form == "json" else as_table(data)
