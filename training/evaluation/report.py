"""The report of an evaluation: `results.json`, `results.md` and `tradeoff.png`.

All three depend only on the records and their heads, so an evaluation that was interrupted reports
the same as one that was not. The date and the duration are separate, in the field `run` of the JSON
file.
"""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stepgrpo_core import ExitReason, ExitSettings
from training.evaluation.intervals import FEW, RESAMPLES
from training.evaluation.passing import Budgets, within_of
from training.evaluation.records import Record
from training.evaluation.statistics import (
    Comparison,
    Estimate,
    Summary,
    summarize_groups,
    summarize_tasks,
)
from training.evaluation.tradeoff import draw_tradeoff
from training.files import write_text

__all__ = ["MACRO", "Heads", "Results", "markdown", "results_of", "write_report"]

MACRO = "macro mean"
ALWAYS_SHOWN = ("threshold", "max_probes", "min_tokens", "min_interval")
Results = Mapping[str, Mapping[str, Summary]]
"""Summaries by task (and `MACRO`) and contender, the baseline first."""
Rows = Mapping[str, Summary]
Groups = Mapping[str, Mapping[str, Results]]
"""Summaries by task, column, its value and contender."""
Heads = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Heads of the records' files by contender and task (`records.read_head`)."""

METHOD = f"""\
All intervals are of 95 %, clustered by question. Accuracy is avg@k, the mean over questions of the
share of correct samples, strictly graded: the last box after the thinking; thinking that never
closed is wrong; what the grader could not decide is `unscored` and left out; `unevaluated` counts
answers of the right value with arithmetic left standing, which are wrong. Its interval is
Wilson's with the effective number of samples. `difference` is to the baseline on the same
questions and sample numbers. Other intervals are bootstraps over questions, {RESAMPLES} resamples:
bootstrap-t for mean tokens, expanded percentiles for differences and compression; a difference in
accuracy in which fewer than {FEW} questions differ has Agresti and Min's. Compression is tokens in
% of the baseline's, as ratio of means and as mean over questions of the ratio. `net` adds the
tokens of trial answers. Dropped tokens were generated behind an exit while its trial answer was in
flight; they are part of no other figure. Truncated completions hit the token limit. The macro mean
counts every task alike. pass@k is the unbiased estimate that one of k samples is correct, maj@k
whether the most frequent answer of all k samples is. `difference by exits` leaves out what only
closing does: a thinking that ends with its turn is closed and answered by exit policies, and stays
wrong under policy none. Within N tokens, longer completions count as wrong, as with that limit.
"""


def results_of(
    records: Mapping[str, Mapping[str, Sequence[Record]]], baseline: str | None
) -> dict[str, dict[str, Summary]]:
    """Return summaries of the records by contender and task; the others are compared with the
    contender named `baseline`, if there is one."""
    base = None if baseline is None else records[baseline]
    names = sorted(records, key=lambda name: name != baseline)  # stable: only the baseline moves
    results: dict[str, dict[str, Summary]] = {}
    for name in names:
        versus = None if name == baseline else base
        summaries, macro = summarize_tasks(records[name], versus)
        for task, summary in (summaries | ({MACRO: macro} if macro else {})).items():
            results.setdefault(task, {})[name] = summary
    return results


def groups_of(
    records: Mapping[str, Mapping[str, Sequence[Record]]], baseline: str | None
) -> dict[str, dict[str, dict[str, dict[str, Summary]]]]:
    """Return summaries of the questions of each group, for the tasks whose records have groups."""
    found: dict[str, dict[str, dict[str, dict[str, Summary]]]] = {}
    for name in sorted(records, key=lambda name: name != baseline):
        for task, mine in records[name].items():
            base = None if baseline in {None, name} else records[str(baseline)][task]
            for (column, value), summary in summarize_groups(mine, base, task).items():
                columns = found.setdefault(task, {})
                columns.setdefault(column, {}).setdefault(value, {})[name] = summary
    return found


def write_report(
    output: Path,
    records: Mapping[str, Mapping[str, Sequence[Record]]],
    *,
    baseline: str | None,
    heads: Heads | None = None,
    run: Mapping[str, Any] | None = None,
) -> None:
    """Write the three files; `records` by contender and task, `run` with date and duration.

    Raises Unpaired if contenders have other questions or samples than the baseline.
    """
    results, groups = results_of(records, baseline), groups_of(records, baseline)
    budgets = {task: within_of(records, task, results[task]) for task in results if task != MACRO}
    output.mkdir(parents=True, exist_ok=True)
    whole = {
        "baseline": baseline,
        "method": " ".join(METHOD.split()),
        "made": heads or {},
        "results": _plain_summaries(results),
        "groups": _plain_summaries(groups),
        "within": _plain_summaries(budgets),
        "run": run or {},
    }
    text = json.dumps(_finite(whole), indent=1, allow_nan=False, ensure_ascii=False)
    write_text(output / "results.json", text + "\n")
    tables = markdown(results, baseline=baseline, heads=heads, groups=groups, budgets=budgets)
    write_text(output / "results.md", tables)
    draw_tradeoff(results, output / "tradeoff.png", baseline=baseline)


def markdown(
    results: Results,
    *,
    baseline: str | None,
    heads: Heads | None = None,
    groups: Groups | None = None,
    budgets: Mapping[str, Budgets] | None = None,
) -> str:
    """Return the tables as Markdown."""
    parts = ["# Evaluation", METHOD.strip()]
    if heads:
        parts.append(_table(("contender", "model", "policy", "weights"), _contenders(heads)))
        parts.append(_made(heads))
    for task, found in results.items():
        parts += [f"## {_cell(task)}", *_setting(task, heads or {})]
        rows = {_name(name, baseline): summary for name, summary in found.items()}
        parts += [_accuracy(rows), _passing(rows), _tokens(rows), _compression(rows)]
        parts += [_within((budgets or {}).get(task, {}), found, baseline), _exits(rows)]
        parts += _groups((groups or {}).get(task, {}), baseline)
    return "\n\n".join(part for part in parts if part) + "\n"


def _accuracy(rows: Rows) -> str:
    head = (
        *("contender", "accuracy, %", "difference, points", *_by_exits(rows), "lenient, %"),
        *("unscored", "unevaluated", "boxed, %", "truncated, %", "completions"),
    )
    return _table(
        head,
        (
            (
                name,
                _shown(each.accuracy, 100),
                _shown(each.versus.accuracy if each.versus else None, 100, sign=True),
                *(
                    _shown(each.versus.accuracy_by_exits if each.versus else None, 100, sign=True)
                    for _ in _by_exits(rows)
                ),
                _shown(each.lenient, 100),
                f"{each.unscored} of {each.completions}",
                f"{each.unevaluated}",
                f"{100 * each.formatted:.1f}",
                f"{100 * each.truncated:.1f}",
                f"{each.questions} x {each.completions / each.questions:.3g}",
            )
            for name, each in rows.items()
        ),
    )


def _by_exits(rows: Rows) -> list[str]:
    """Return the head of the column, if any thinking ended by the end-of-sequence token."""
    some = any(each.exits.get(ExitReason.EOS_IN_THINKING) for each in rows.values())
    return ["difference by exits, points"] if some else []


def _passing(rows: Rows) -> str:
    sizes = sorted({k for each in rows.values() for k in each.pass_at})
    if not sizes:
        return ""
    head = ("contender", *(f"pass@{k}, %" for k in sizes), f"maj@{sizes[-1]}, %")
    return _table(
        head,
        (
            (
                name,
                *(_shown(each.pass_at.get(k), 100) for k in sizes),
                _shown(each.majority, 100),
            )
            for name, each in rows.items()
        ),
    )


def _within(budgets: Budgets, found: Mapping[str, Summary], baseline: str | None) -> str:
    sizes = sorted({size for each in budgets.values() for size in each})
    rows = (
        (_name(name, baseline), *(_shown(each.get(n, found[name].accuracy), 100) for n in sizes))
        for name, each in budgets.items()
    )
    return _table(("accuracy within N tokens, %", *map(str, sizes)), rows) if sizes else ""


def _groups(columns: Mapping[str, Results], baseline: str | None) -> list[str]:
    """Return a table for each column whose values group the questions."""
    head = ("questions", "contender", "accuracy, %", "difference, points", "tokens")
    return [
        _table(
            (_cell(column), *head, "tokens, % of the baseline"),
            (
                (_cell(value), str(each.questions), _name(name, baseline), *_group(each))
                for value, found in values.items()
                for name, each in found.items()
            ),
        )
        for column, values in columns.items()
    ]


def _group(each: Summary) -> tuple[str, ...]:
    versus = each.versus
    return (
        _shown(each.accuracy, 100),
        _shown(versus.accuracy if versus else None, 100, sign=True),
        _shown(each.tokens),
        _shown(versus.ratio_of_means if versus else None, 100),
    )


def _tokens(rows: Rows) -> str:
    head = (
        *("contender", "tokens", "difference", "steps", "tokens per step", "trials"),
        *("probe tokens", "net tokens", "dropped tokens"),
    )
    return _table(
        head,
        (
            (
                name,
                _shown(each.tokens),
                _shown(each.versus.tokens if each.versus else None, sign=True),
                f"{each.steps:.2f}",
                "" if each.tokens_per_step is None else f"{each.tokens_per_step:.1f}",
                f"{each.probes:.2f}",
                f"{each.probe_tokens:.1f}",
                _shown(each.net_tokens),
                f"{each.discarded_tokens:.1f}",
            )
            for name, each in rows.items()
        ),
    )


def _compression(rows: Rows) -> str:
    compared = {name: each.versus for name, each in rows.items() if each.versus}
    if not compared:
        return ""
    head = (
        *("contender", "tokens, % of the baseline: ratio of means", "mean of ratios"),
        *("net: ratio of means", "net: mean of ratios"),
    )
    return _table(head, ((name, *_ratios(versus)) for name, versus in compared.items()))


def _ratios(versus: Comparison) -> tuple[str, ...]:
    return (
        _shown(versus.ratio_of_means, 100),
        _shown(versus.mean_of_ratios, 100),
        _shown(versus.net_ratio_of_means, 100),
        _shown(versus.net_mean_of_ratios, 100),
    )


def _exits(rows: Rows) -> str:
    reasons = sorted({reason for each in rows.values() for reason in each.exits})
    return _table(
        ("thinking ended, completions", *reasons),
        ((name, *(str(each.exits.get(one, 0)) for one in reasons)) for name, each in rows.items()),
    )


def _contenders(heads: Heads) -> Iterable[tuple[str, ...]]:
    for name, tasks in heads.items():
        head = next(iter(tasks.values()))
        settings = head["settings"]
        weights = settings["weights"] or f"revision {head['made_with'].get('revision')}"
        yield _cell(name), _cell(settings["model"]), _cell(_policy(settings["exit"])), weights


def _policy(settings: Mapping[str, Any]) -> str:
    """Return the policy with its most important and its non-default settings; without exits only
    the non-default ones, which count steps."""
    default = dataclasses.asdict(ExitSettings())
    always = () if settings["policy"] == "none" else ALWAYS_SHOWN
    shown = [
        f"{name} {value}"
        for name, value in settings.items()
        if name != "policy" and (name in always or value != _plain(default.get(name)))
    ]
    return ", ".join([str(settings["policy"]), *shown])


def _plain(value: Any) -> Any:
    """Return a value as it is after a round trip through JSON."""
    return list(value) if isinstance(value, tuple) else value


def _made(heads: Heads) -> str:
    """Return the origin of the records: one line unless they have several origins."""
    lines = []
    for tasks in heads.values():
        for head in tasks.values():
            made = head["made_with"]
            versions = ", ".join(f"{name} {value}" for name, value in made["versions"].items())
            lines.append(
                f"{made['hardware']}; {made['dtype']}; {versions}; commit {made['commit']}"
            )
    return "Made with: " + " / ".join(dict.fromkeys(map(_cell, lines))) + "."


def _setting(task: str, heads: Heads) -> list[str]:
    made = [tasks[task]["settings"] for tasks in heads.values() if task in tasks]
    return list(dict.fromkeys(map(_sampling, made)))


def _sampling(settings: Mapping[str, Any]) -> str:
    draws, sampling = settings["draws"], settings["draws"]["sampling"]
    return (
        f"At most **{sampling['max_tokens']} tokens** per completion, {draws['samples']} samples "
        f"per question, T {sampling['temperature']}, top_p {sampling['top_p']}, top_k "
        f"{sampling['top_k'] or 'all'}{_rarer(sampling)}, dtype {settings['dtype']}, "
        f"seed {settings['seed']}, questions {settings['questions']}"
        + (f" (the first {settings['limit']})." if settings["limit"] else ".")
        + _prompts(settings.get("prompts", {}))
    )


def _rarer(sampling: Mapping[str, Any]) -> str:
    """Return the rarely used sampling parameters, if they are set."""
    plain = {"min_p": 0, "repetition_penalty": 1}
    return "".join(
        f", {name} {sampling[name]}"
        for name, off in plain.items()
        if sampling.get(name, off) != off
    )


def _prompts(prompts: Mapping[str, Any]) -> str:
    """Return the settings of the prompt template; empty if there are none."""
    variables = ", ".join(
        f"{name} {value}" for name, value in prompts.get("chat_template_kwargs", {}).items()
    )
    system = prompts.get("system_prompt")
    return (f" Chat template: {_cell(variables)}." if variables else "") + (
        "" if system is None else f' System prompt: "{_cell(system)}".'
    )


def _name(name: str, baseline: str | None) -> str:
    return f"{_cell(name)} (baseline)" if name == baseline else _cell(name)


def _shown(estimate: Estimate | None, scale: float = 1, *, sign: bool = False) -> str:
    """Return an estimate with its interval."""
    if estimate is None:
        return ""
    precision = 1 if scale > 1 or abs(estimate.value) < 100 else 0
    value, low, high = (
        f"{scale * each:{'+' if sign else ''}.{precision}f}"
        for each in (estimate.value, estimate.low, estimate.high)
    )
    return value if math.isnan(estimate.low) else f"{value} ({low} to {high})"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    """Escape a name, so that it adds no markup, columns or lines."""
    plain = " ".join(str(text).split())
    return "".join(f"\\{each}" if each in "\\`*_|<>[]" else each for each in plain)


def _plain_summaries(found: Any) -> Any:
    """Return summaries at any depth as mappings."""
    if isinstance(found, Mapping):
        return {key: _plain_summaries(each) for key, each in found.items()}
    return dataclasses.asdict(found)


def _finite(value: Any) -> Any:
    """Replace NaN and infinity by null, because JSON has neither."""
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
