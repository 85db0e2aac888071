"""Static HTML page that shows the completions that are not correct."""

import html
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from training.evaluation.records import Record
from training.evaluation.tasks import Question

__all__ = ["write_failures"]

SHOWN = 200
"""Maximum number of completions shown per contender and task; the records hold all of them."""
TAIL = 1200  # characters shown of a completion that was stored whole
HEAD = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Completions that are not correct</title>
<style>
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem }
pre { background: #8881; padding: .6rem; white-space: pre-wrap; overflow-wrap: anywhere }
dt { font-weight: 600; margin-top: .5rem } dd { margin: 0 }
summary { cursor: pointer; padding: .2rem 0 }
</style>
<h1>Completions that are not correct</h1>
"""


def write_failures(
    path: Path,
    records: Mapping[str, Mapping[str, Sequence[Record]]],
    questions: Mapping[str, Sequence[Question]],
) -> None:
    """Write the page; `records` by contender and task, `questions` by task.

    Completions are in the order of questions. All text from data and models is escaped.
    """
    parts = [HEAD]
    for name, tasks in records.items():
        for task, found in tasks.items():
            asked = {each.id: each for each in questions[task]}
            parts.extend(_section(f"{name}, {task}", found, asked))
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text("\n".join(parts) + "\n", encoding="utf-8")
    partial.replace(path)


def _section(title: str, records: Sequence[Record], asked: Mapping[str, Question]) -> Iterator[str]:
    failed = [each for each in records if not each.correct]
    yield f"<h2>{html.escape(title)}</h2>"
    shown = f", the first {SHOWN} of them here" if len(failed) > SHOWN else ""
    yield f"<p>{len(failed)} of {len(records)} completions{shown}.</p>"
    for each in failed[:SHOWN]:
        yield _failure(each, asked[each.question])


def _failure(record: Record, question: Question) -> str:
    answer = record.answer if record.answer is not None else "none"
    verdict = "unscored" if record.correct is None else "wrong"
    title = (
        f"{record.question}, sample {record.sample}: {verdict} ({record.verdict}), "
        f"answer {answer[:80]}"
    )
    end = (record.text or record.tail or "")[-TAIL:]
    rows = {
        "Question": question.prompt,
        "Gold": question.gold,
        "Extracted answer": answer,
        "End of the completion": end or "not stored by the version that made it",
    }
    facts = f"{record.tokens} tokens, thinking ended: {record.exit}, seed {record.seed}"
    cells = "".join(
        f"<dt>{name}</dt><dd><pre>{html.escape(text)}</pre></dd>" for name, text in rows.items()
    )
    return (
        f"<details><summary>{html.escape(title)}</summary><p>{html.escape(facts)}</p>"
        f"<dl>{cells}</dl></details>"
    )
