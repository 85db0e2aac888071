"""What is generated in docs/ is what the code says now."""

import json
import re
from pathlib import Path

from scripts.docs import generated
from stepgrpo_core.control.states import TRANSITIONS

ROOT = Path(__file__).parents[2]


def test_generated_parts_are_current() -> None:
    for path, text in generated().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is stale: run make docs"


def test_the_diagram_has_every_transition() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for state, moves in TRANSITIONS.items():
        for signal, after in moves.items():
            assert f"{state.value} --> {after.value}: {signal.value}" in text


def test_links_between_documents_resolve() -> None:
    for document in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_the_readmes_table_is_the_one_of_the_results() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8").replace("−", "-").splitlines()
    results = json.loads((ROOT / "docs" / "results.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert results["made"]["commit"] in page
    for title, row in results["rows"].items():
        (line,) = (each for each in readme if each.startswith(f"| {title} |"))
        accuracy, versus = row["accuracy"], row["versus"]
        shown = [accuracy["value"], accuracy["low"], accuracy["high"]]
        if title != "vanilla":
            change = versus["accuracy"]
            shown += [change["value"], change["low"], change["high"]]
            shown.append(versus["ratio_of_means"]["value"])
        assert all(f"{100 * each:.1f}" in line for each in shown), title


def test_every_alert_says_what_to_do() -> None:
    rules = (ROOT / "deploy" / "prometheus" / "rules.yml").read_text(encoding="utf-8")
    alerts = re.findall(r"- alert: (\w+)", rules)
    handbook = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    assert len(alerts) >= 7
    assert re.findall(r"^\| (Stepgrpo\w+) \|", handbook, re.MULTILINE) == alerts
