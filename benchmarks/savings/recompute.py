"""Recompute the figures of a page of results from the records behind it.

``python -m benchmarks.savings.recompute [FOLDER]`` reads results.json, results.md and records/ of a
folder (default: docs; `stepgrpo-train demo results` writes such folders). It computes the figures
of every evaluation that has records, makes the page anew, and fails where one of the files says
otherwise. With --evaluate, it first evaluates the models in models/ (about two minutes on two idle
CPU cores) and replaces their records in the folder.
"""

import dataclasses
import json
import math
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from difflib import unified_diff
from pathlib import Path
from typing import Any

from benchmarks.shared.arguments import parser_of
from benchmarks.shared.reports import ROOT
from training.demo.results import (
    BASE,
    EXITED,
    ORIGIN,
    archive_of,
    equal_tokens_of,
    figures,
    page,
    read_rows,
    read_ways,
    without_records,
)
from training.evaluation.records import (
    read_archive,
    read_head,
    read_records,
    records_file,
    write_archive,
)
from training.evaluation.statistics import summarize

EQUAL = "## At equal tokens"
SHIPPED = {
    "vanilla": (BASE, BASE),
    "vanilla, exit policy `confidence`": (BASE, EXITED),
    "**Step-GRPO**": ("demo-step-grpo", "demo-step-grpo"),
}
"""Folder and contender of the evaluation that gives the first seed of a row."""


def main() -> int:
    """Print what was computed and what differs; return 1 if anything does."""
    parser = parser_of(__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "docs")
    parser.add_argument("--evaluate", action="store_true", help="evaluate the models first")
    args = parser.parse_args()
    if args.evaluate:
        evaluate(args.folder, ROOT / "outputs" / "recompute")
    data = json.loads((args.folder / "results.json").read_text(encoding="utf-8"))
    missing = without_records(args.folder, data)
    differences = recompute(args.folder)
    for each in differences:
        print(each)
    found = len(list((args.folder / "records").glob("*.jsonl.gz")))
    print(f"{found} files of records, {len(missing)} not there, {len(differences)} differences")
    return bool(differences)


def recompute(folder: Path) -> list[str]:
    """Return every difference between a folder's records, figures and page."""
    data = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    text = (folder / "results.md").read_text(encoding="utf-8")
    missing = without_records(folder, data)
    found = list(_seeds(folder, data))
    rows = read_rows(folder, data)
    ways = {} if missing else read_ways(folder, data)
    equal = text[text.index(EQUAL) :].rstrip() if EQUAL in text else ""
    if rows and rows[0].title == "vanilla":
        computed = json.loads(json.dumps(figures(rows, ways, data["made"])))
        stated = {title: data["rows"][title] for title in computed["rows"]}
        found += _differences(stated, computed["rows"], "rows")
        found += _differences(data["ways"] if ways else {}, computed["ways"], "ways")
        equal = equal if missing else equal_tokens_of(ways, rows[0].seeds[0])
    made = page(data, equal, missing).splitlines()
    return found + [
        f"results.md: {line}"
        for line in unified_diff(text.splitlines(), made, "stated", "computed", "", "", 0, "")
    ]


def _seeds(folder: Path, data: Mapping[str, Any]) -> Iterator[str]:
    """Yield the differences of single evaluations, in rows that lack some of their records."""
    for title, row in data["rows"].items():
        for seed, stated in enumerate(row["seeds"]):
            path = archive_of(folder, title, seed)
            if path.exists():
                computed = dataclasses.asdict(summarize(read_archive(path)))
                yield from _differences(stated, computed, f"rows.{title}.seeds.{seed}")


def _differences(stated: Any, computed: Any, place: str) -> Iterator[str]:
    """Yield the stated figures that differ; figures that are not stated are not compared."""
    if isinstance(stated, Mapping) and isinstance(computed, Mapping):
        for name, value in stated.items():
            yield from _differences(value, computed.get(name), f"{place}.{name}")
    elif isinstance(stated, Sequence) and not isinstance(stated, str):
        for number, (one, other) in enumerate(zip(stated, computed, strict=True)):
            yield from _differences(one, other, f"{place}.{number}")
    elif not _same(stated, computed):
        yield f"results.json: {place} is {stated}, computed {computed}"


def _same(stated: Any, computed: Any) -> bool:
    if isinstance(stated, float) and isinstance(computed, float):
        return math.isclose(stated, computed, rel_tol=1e-9, abs_tol=1e-12)
    return bool(stated == computed)


def evaluate(folder: Path, output: Path) -> None:
    """Evaluate the models in models/ as the table does, and put their records into `folder`."""
    data = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    for name, policies in ((BASE, ("none", "confidence")), ("demo-step-grpo", ("none",))):
        words = ["eval", "--tasks", "demo", "--limit", str(data["made"]["problems"])]
        words += ["--samples", "1", f"--model={name}=models/{name}", f"--baseline={name}"]
        words += [f"--output={output / name}", *(f"--policy={policy}" for policy in policies)]
        subprocess.run([sys.executable, "-m", "training.cli", *words], cwd=ROOT, check=True)
    for title, (name, contender) in SHIPPED.items():
        path = records_file(output / name, contender, "demo")
        made = read_head(path)["made_with"]
        origin = {each: made[each] for each in ORIGIN}
        write_archive(archive_of(folder, title, 0), read_records(path), origin)


if __name__ == "__main__":
    sys.exit(main())
