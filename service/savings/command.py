"""`stepgrpo-serve savings`: print the savings of a running server or of a state file.

`stepgrpo-serve guard`: list policies that the quality gate has switched off, or switch one on.
"""

import argparse
import contextlib
import datetime
import json
import os
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from service.savings.quality_gate import restart_watch
from service.savings.report import as_csv, as_json, as_table, read_estimates
from service.savings.state.series import JUDGED
from service.savings.state.store import SumStore, SwitchedOff

__all__ = ["PATH", "guard_command", "guard_parser", "savings_command", "savings_parser"]

PATH = "/v1/stepgrpo/savings"


def savings_command(arguments: list[str]) -> None:
    """Print the savings; exit with a one-line message on failure."""
    args = savings_parser().parse_args(arguments)
    try:
        print(_from_file(args.state, args.format) if args.state else _from_server(args))
    except (OSError, ValueError, httpx.HTTPError) as error:
        sys.exit(f"stepgrpo-serve savings: {error}")


def savings_parser() -> argparse.ArgumentParser:
    """Return the parser of `savings`."""
    parser = argparse.ArgumentParser(
        prog="stepgrpo-serve savings",
        description="Print the tokens that exits saved, by model and policy, as measured by the "
        "holdout and pairs of a server (--exit-holdout, --exit-pairs). The API key comes from "
        "OPENAI_API_KEY.",
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--url", default="http://localhost:8000", help="URL of the server. Default: %(default)s."
    )
    source.add_argument("--state", type=Path, help="Read this --exit-state file instead.")
    form = "Output format. Default: %(default)s."
    parser.add_argument("--format", choices=("table", "json", "csv"), default="table", help=form)
    return parser


def guard_parser() -> argparse.ArgumentParser:
    """Return the parser of `guard`."""
    parser = argparse.ArgumentParser(
        prog="stepgrpo-serve guard",
        description="List the policies that the quality gate (--exit-agreement) has switched off, "
        "or switch one on again: servers with this file follow within seconds, and restart "
        "the count of its pairs.",
    )
    parser.add_argument("--state", type=Path, required=True, help="The --exit-state file.")
    parser.add_argument(
        "--switch-on",
        nargs=2,
        metavar=("MODEL", "POLICY"),
        help="Switch this policy on for this model; names as listed.",
    )
    return parser


def guard_command(arguments: list[str]) -> None:
    """List switched-off policies or switch one on; exit with a one-line message on failure."""
    args = guard_parser().parse_args(arguments)
    try:
        with _open_store(args.state) as store:
            print(_switch_on(store, *args.switch_on) if args.switch_on else _list(store))
    except (OSError, ValueError, sqlite3.Error) as error:
        sys.exit(f"stepgrpo-serve guard: {error}")


def _list(store: SumStore) -> str:
    return "\n".join(map(_line, store.switched_off())) or "No policy is switched off."


def _line(off: SwitchedOff) -> str:
    of = f" (settings {off.fingerprint})" if off.fingerprint else ""
    return f"{off.model}  {off.policy}  since {_utc(off.since)}: {off.why}{of}"


def _utc(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(" ", "seconds")


def _switch_on(store: SumStore, model: str, policy: str) -> str:
    for key in store.recent(JUDGED):  # under all fingerprints
        if key[1:] == (model, policy):
            store.forget(key)
    if not store.switch_on(model, policy):
        raise ValueError(f"policy {policy!r} is not switched off for {model!r}")
    restart_watch(store, model, policy)
    return f"Policy {policy} is on again for {model}."


@contextlib.contextmanager
def _open_store(path: Path) -> Iterator[SumStore]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; --exit-state creates it")
    store = SumStore(path)
    try:
        if store.problem is not None:
            raise ValueError(f"{path}: {store.problem}")
        yield store
    finally:
        store.close()


def _from_file(path: Path, form: str) -> str:
    with _open_store(path) as store:
        rows = read_estimates(store)
    return as_csv(rows) if form == "csv" else _render(as_json(rows), form)


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
    return answer.text if args.format == "csv" else _render(answer.json(), args.format)


def _render(data: dict[str, Any], form: str) -> str:
    return json.dumps(data, indent=2) if form == "json" else as_table(data)
