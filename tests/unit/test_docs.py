"""The documents: generated parts are current, figures are the measured ones, links resolve."""

import json
import re
from pathlib import Path

from benchmarks.serving.speed_report import page, ratio
from scripts.docs import generated
from stepgrpo_core.control.states import TRANSITIONS

ROOT = Path(__file__).parents[2]
FOLDERS = "service|training|stepgrpo_core|stepgrpo_math|tests|benchmarks|scripts|findings|deploy"
PATH = re.compile(rf"(?<![\w/.-])(?:{FOLDERS})/(?!.*NAME)[\w./-]+\.\w+")
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def test_generated_parts_are_current() -> None:
    for path, text in generated().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is stale: run make docs"


def test_the_diagram_has_every_transition() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for state, moves in TRANSITIONS.items():
        for signal, after in moves.items():
            assert f"{state.value} --> {after.value}: {signal.value}" in text


def anchors(document: Path) -> set[str]:
    """GitHub's anchors of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


def test_links_between_documents_resolve() -> None:
    broken = []
    for document in PAGES:
        text = document.read_text(encoding="utf-8")
        for target, _, anchor in re.findall(r"\]\(([^)#:]*)(#([^)]+))?\)", text):
            page = document.parent / target if target else document
            if not page.exists() or (anchor and anchor not in anchors(page)):
                broken.append(f"{document.name}: {target}#{anchor}")
    assert broken == []


def test_files_that_documents_name_exist() -> None:
    modules = {path.name for folder in FOLDERS.split("|") for path in (ROOT / folder).rglob("*.py")}
    named, missing = 0, []
    for document in PAGES:
        if document.name in ("LOG.md", "CHANGELOG.md"):  # they tell of their time
            continue
        code = " ".join(re.findall(r"`([^`\n]+)`", document.read_text(encoding="utf-8")))
        paths, bare = PATH.findall(code), re.findall(r"(?<![\w/])\w+\.py\b", code)
        named += len(paths) + len(bare)
        missing += [path for path in paths if not (ROOT / path).exists()]
        missing += [name for name in bare if name not in modules]
    assert named > 120
    assert missing == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop().resolve()
        if page in reached:
            continue
        reached.add(page)
        text = page.read_text(encoding="utf-8")
        todo += [page.parent / each for each in re.findall(r"\]\(([^)#:]+\.md)", text)]
    assert [page.name for page in PAGES if page.resolve() not in reached] == []


def test_the_readme_stays_short() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert 600 <= len(text.split()) <= 900
    assert "built to show the effect" in text


def test_the_readmes_figures_are_the_measured_ones() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8").replace("−", "-").splitlines()
    results = json.loads((ROOT / "docs" / "results.json").read_text(encoding="utf-8"))
    speed = json.loads((ROOT / "docs" / "speed.json").read_text(encoding="utf-8"))
    rows = {
        "Step-GRPO against its base model": results["rows"]["**Step-GRPO**"],
        "the base model with exit policy": results["rows"]["vanilla, exit policy `confidence`"],
    }
    for start, row in rows.items():
        (line,) = (each for each in readme if each.startswith(f"| {start}"))
        accuracy, tokens = row["versus"]["accuracy"], row["versus"]["ratio_of_means"]
        shown = [f"{100 * accuracy['value']:+.1f} points ({100 * accuracy['low']:+.1f} to "]
        shown += [f"{100 * tokens[each]:.1f}" for each in ("value", "low", "high")]
        assert all(each in line for each in shown), line
    served = speed["served"]
    ratios = {
        "requests per second": served["confidence, closed loop"]["ways"]["confidence"],
        "output tokens per second": served["none, closed loop"]["ways"]["none"],
    }
    for start, way in ratios.items():
        (line,) = (each for each in readme if each.startswith(f"| {start}"))
        figure = ratio(way[start.removeprefix("output ")])
        assert figure.replace(" (", " times (") in line, line
    text = " ".join(readme)
    assert f"{results['made']['commit']} (results)" in text
    assert f"{speed['made']['serving']['commit']} (speed)" in text


def test_the_page_of_speed_is_made_of_its_figures() -> None:
    found = json.loads((ROOT / "docs" / "speed.json").read_text(encoding="utf-8"))
    assert (ROOT / "docs" / "speed.md").read_text(encoding="utf-8") == page(found)


def test_the_page_of_results_shows_its_figures() -> None:
    results = json.loads((ROOT / "docs" / "results.json").read_text(encoding="utf-8"))
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert results["made"]["commit"] in text
    for title, row in results["rows"].items():
        line = next(each for each in text.splitlines() if each.startswith(f"| {title} |"))
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
