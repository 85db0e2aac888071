"""The complete speed benchmark of the server: runs the parts and writes docs/speed.md from them.

The parts are `wrapper`, `probing`, `hotpath` and `serving` of this folder; each can be run by
itself and writes its figures to outputs/bench. With --quick they are small, and the page goes to
outputs/bench instead of docs/.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.serving.speed_figures import figures
from benchmarks.serving.speed_plot import draw
from benchmarks.serving.speed_report import page
from benchmarks.shared.arguments import parser_of
from benchmarks.shared.reports import ROOT

PARTS: dict[str, tuple[str, ...]] = {"wrapper": (), "probing": (), "hotpath": (), "serving": ()}
QUICK: dict[str, tuple[str, ...]] = {
    "wrapper": ("--streams", "4", "--tokens", "200", "--rounds", "2", "--open", "20"),
    "probing": ("--pairs", "1", "--prompts", "16"),
    "hotpath": ("--requests", "16"),
    "serving": ("--quick",),
}
BENCH = ROOT / "outputs" / "bench"


def main() -> None:
    """Run the parts, then write the page."""
    parser = parser_of(__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="small parts: whether they run, not how fast"
    )
    parser.add_argument(
        "--parts", nargs="*", choices=PARTS, default=list(PARTS), help="which are run anew (all)"
    )
    args = parser.parse_args()
    for name in args.parts:
        options = QUICK[name] if args.quick else PARTS[name]
        print(f"\n# {name}", flush=True)
        subprocess.run([sys.executable, "-m", f"benchmarks.serving.{name}", *options], check=True)
    print(write(BENCH if args.quick else ROOT / "docs"))


def write(folder: Path) -> Path:
    """Write speed.json, speed.md and speed.png to `folder`, from the figures of the parts."""
    measured = {
        name: json.loads((BENCH / f"{name}.json").read_text(encoding="utf-8")) for name in PARTS
    }
    found: dict[str, Any] = figures(measured)
    text = json.dumps(found, indent=1, ensure_ascii=False)
    (folder / "speed.json").write_text(text + "\n", encoding="utf-8")
    draw(found, folder / "speed.png")
    target = folder / "speed.md"
    target.write_text(page(found), encoding="utf-8")
    return target


if __name__ == "__main__":
    main()
