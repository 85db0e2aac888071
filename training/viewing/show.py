"""`stepgrpo-train show`: a static page with a run's curves and its kept completions."""

import base64
import html
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from training.files import write_text
from training.grpo.completions import KeptCompletion, KeptGroup, read_groups
from training.run.plots import draw_curves

__all__ = ["write_page"]

FILTERS = {
    "all": "all groups",
    "wrong": "all wrong",
    "mixed": "some right",
    "right": "all right",
}
"""Kinds of groups, which are chosen without a script."""
STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem }
img { max-width: 100% }
pre { background: #8881; padding: .6rem; white-space: pre-wrap; overflow-wrap: anywhere }
summary { cursor: pointer; padding: .2rem 0 }
details details { margin-left: 1.2rem }
""" + "".join(
    f"#show-{kind}:checked ~ main .group:not(.{kind}) {{ display: none }}\n"
    for kind in FILTERS
    if kind != "all"
)
HEAD = f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>%s</title>
<style>{STYLE}</style>
<h1>%s</h1>
"""


def write_page(run: Path, page: Path) -> None:
    """Write the page of a run's output folder; all text from data and models is escaped.

    Raises ValueError if the folder has neither metrics nor completions.
    """
    history, groups = _history(run), read_groups(run)
    if not history and not groups:
        raise ValueError(
            f"{run} holds no metrics and no completions; name the output folder of a GRPO run that "
            "has made a step"
        )
    title = html.escape(f"Run {run.resolve().name}")
    parts = [HEAD.replace("%s", title), _curves(history), *_filters(groups), "<main>"]
    for step in sorted({each.step for each in groups}):
        parts += _step(step, [each for each in groups if each.step == step])
    write_text(page, "\n".join([*parts, "</main>", ""]))


def _history(run: Path) -> list[dict[str, Any]]:
    """Return the logged metrics: of the finished run, or of its newest checkpoint."""
    if (metrics := run / "metrics.jsonl").is_file():
        return [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    states = {
        int(path.parent.name.rpartition("-")[2]): path
        for path in run.glob("checkpoint-*/trainer_state.json")
    }
    if not states:
        return []
    found: list[dict[str, Any]] = json.loads(states[max(states)].read_text(encoding="utf-8"))[
        "log_history"
    ]
    return found


def _curves(history: Sequence[Mapping[str, Any]]) -> str:
    with tempfile.TemporaryDirectory() as folder:
        draw_curves(history, path := Path(folder) / "curves.png")
        if not path.exists():
            return "<p>No metrics yet.</p>"
        image = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="Learning curves" src="data:image/png;base64,{image}">'


def _filters(groups: Sequence[KeptGroup]) -> Iterator[str]:
    """Yield one radio button per kind of group, with the number of groups."""
    kinds = [_kind(each) for each in groups]
    for kind, label in FILTERS.items():
        count = len(kinds) if kind == "all" else kinds.count(kind)
        checked = " checked" if kind == "all" else ""
        yield (
            f'<input type="radio" name="groups" id="show-{kind}"{checked}>'
            f'<label for="show-{kind}">{label} ({count})</label>'
        )


def _kind(group: KeptGroup) -> str:
    """Return the kind of a group; unscored completions do not count."""
    scored = {each.correct for each in group.completions} - {None}
    if scored == {True}:
        return "right"
    return "mixed" if True in scored else "wrong"


def _step(step: int, groups: Sequence[KeptGroup]) -> Iterator[str]:
    yield f"<h2>Step {step}</h2>"
    for group in groups:
        right = sum(bool(each.correct) for each in group.completions)
        title = f"{right} of {len(group.completions)} right: {group.prompt[:120]}"
        yield (
            f'<details class="group {_kind(group)}"><summary>{html.escape(title)}</summary>'
            f"<pre>{html.escape(group.prompt)}</pre><p>Gold: {html.escape(group.gold)}</p>"
        )
        yield from map(_completion, group.completions)
        yield "</details>"


def _completion(each: KeptCompletion) -> str:
    correct = {True: "right", False: "wrong", None: "unscored"}[each.correct]
    reward = "no reward" if each.reward is None else f"reward {each.reward:.3g}"
    cut = "" if each.cut is None else f", cut after {each.cut}"
    limit = "" if each.ended else ", token limit reached"
    title = (
        f"{correct} ({each.verdict}), {reward}, k {each.steps}, {each.tokens} tokens{cut}{limit}, "
        f"thinking ended: {each.exit}"
    )
    facts = f"Answer: {'none' if each.answer is None else each.answer}"
    if each.confidences:
        facts += f". Probes: {', '.join(f'{value:.3f}' for value in each.confidences)}"
    return (
        f"<details><summary>{html.escape(title)}</summary><p>{html.escape(facts)}</p>"
        f"<pre>{html.escape(each.text)}</pre></details>"
    )
