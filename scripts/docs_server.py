"""The parts of docs/reference.md that describe the server."""

from collections.abc import Mapping

from service.config.access import ACCESS
from service.config.layers import Option
from service.config.server import OPTIONS, ServerSettings
from service.params import EFFORT, EVENTS, FOREIGN, PARAMETERS
from service.params.limits import ProbeLimits
from service.records.metric_table import METRICS
from service.records.reasons import Abstained
from service.savings.plan import Plan
from stepgrpo_core import ExitSettings
from stepgrpo_core.docstrings import field_docs
from stepgrpo_core.families.table import FAMILIES, Family

PARAMETERS_TEXT = """
## Request parameters

They stand in `vllm_xargs`. The server's options set the same for requests that have none.
"""


EVENTS_HELP = (
    "Send steps, probes, and exits as `stepgrpo_events` in the chunks of the stream "
    "([events](serving.md#events-in-a-stream))."
)


def parameters() -> str:
    """Return the request parameters, ours and those of other ecosystems, and the efforts."""
    ours = {name: OPTIONS[field] for name, (field, _) in PARAMETERS.items()}
    return "\n".join(
        [
            PARAMETERS_TEXT.strip(),
            "",
            *option_table("parameter", ours),
            f"| `{EVENTS}` | {EVENTS_HELP} | `False` |",
            "",
            CONTROLS.strip(),
            "",
            "| ecosystem | parameter | sets |",
            "|---|---|---|",
            *(f"| {row.ecosystem} | `{row.path}` | {EFFECTS[row.sets]} |" for row in FOREIGN),
            "",
            "| effort | thinking may take |",
            "|---|---|",
            *(f"| `{name}` | {worth_of(worth)} |" for name, worth in EFFORT.items()),
        ]
    )


def option_table(title: str, options: Mapping[str, Option]) -> list[str]:
    """Return a table of options under their names in this project."""
    rows = [
        f"| `{name}` | {escaped(option.help)} | {code(repr(option.default))} |"
        for name, option in options.items()
    ]
    return [f"| {title} | meaning | default |", "|---|---|---|", *rows]


def escaped(text: str) -> str:
    """Escape a text for a cell of a table."""
    return text.replace("|", "\\|")


EFFECTS = {
    "switch": "thinking on or off",
    "effort": "an effort, see below",
    "budget": "reasoning tokens; 0: none, -1: no limit",
}
CONTROLS = """
### Of other ecosystems

All endpoints that generate read all of these, batches of chats included; a key with a dot is one
inside an object. Where several bound the thinking, the first in this order holds:

1. `vllm_xargs`,
2. an explicit budget,
3. an effort,
4. the server's options.

Two that contradict each other, a key that is misspelt or in a wrong place, and a value that cannot
be honored are refused with 400; the error names them.

A budget adds `budget` to the policy. It becomes the policy where that was `none`, or where the
server only watches. It is lowered as far as needed to leave room for an answer under the token
limit.

Thinking is switched off by a switch, by effort `none` and by a budget of 0. All three set the chat
template's own switch, and thinking that begins nevertheless is closed after its first token. Where
the template has no switch, a budget of 0 closes the thinking in this way alone, and the other two
are refused.

An effort that the chat template does not know is passed to it as the nearest one that it knows, or
not at all; its budget holds in any case. The block `stepgrpo` of the response shows the result
under `settings`, and under `from` the parameter that set it.
"""


def worth_of(worth: float | None) -> str:
    """Return the limits of an effort in words."""
    if worth is None:
        return "unlimited"
    if worth == 0:
        return "nothing: off"
    return f"{worth:g} of the token limit" if isinstance(worth, float) else f"{worth} tokens"


OPTIONS_TEXT = """
## Options of the server

They hold for requests that set nothing else. The first of these that sets an option wins, shown for
`max_steps` and `shadow`:

1. a flag of `stepgrpo-serve`: `--exit-max-steps 4`; `--exit-shadow` or `--no-exit-shadow`,
2. an environment variable: `STEPGRPO_EXIT_MAX_STEPS=4`; `STEPGRPO_EXIT_SHADOW=true`,
3. a key of the YAML file that `--exit-config` or `STEPGRPO_EXIT_CONFIG` names: `max_steps: 4`;
   `shadow: true`,
4. the default.

A variable may also be `false`; in the file `markers` may be a list, `effort` and `families` a
mapping. All options are checked at start: one that cannot be honored ends the start with one line
that names source, key, value and remedy.
"""
SECTIONS = {
    ExitSettings: "Exit settings",
    ProbeLimits: "Limits of probes",
    Plan: "Measuring savings",
    ServerSettings: "Model, log and effort",
}


def options() -> str:
    """Return the server's options, by section."""
    parts = [OPTIONS_TEXT.strip()]
    for section, title in SECTIONS.items():
        ours = {name: OPTIONS[name] for name in field_docs(section)}
        parts += ["", f"### {title}", "", *option_table("option", ours)]
    return "\n".join(parts)


ACCESS_TEXT = """
## Options of access

They work like the options above, but without a file:

1. a flag of `stepgrpo-serve`: `--key-rate 60`; `--open-metrics` or `--no-open-metrics`,
2. an environment variable: `STEPGRPO_SERVE_KEY_RATE=60`; `STEPGRPO_SERVE_OPEN_METRICS=true`,
3. the default.

How to use them is in [operations.md](operations.md#security).
"""


def access() -> str:
    """Return the server's access options."""
    return "\n".join([ACCESS_TEXT.strip(), "", *option_table("option", ACCESS)])


ABSTAINING = """
## Abstaining

A policy abstains where an exit could not work or a probe would mean nothing. The response's block
then has the reason under `abstained`, and under `policy` what is left.

| `abstained` | when |
|---|---|
"""


def abstentions() -> str:
    """Return the reasons for which a policy abstains."""
    docs = field_docs(Abstained)
    rows = [f"| `{reason}` | {escaped(docs[reason.name])} |" for reason in Abstained]
    return "\n".join([ABSTAINING.strip(), *rows])


FAMILIES_TEXT = """
## Families of models

A family tells how its models write thinking. Server and trainer take the first of these that is
given or fits, and say in the log which:

1. the family named by `--exit-family`,
2. a family described under `families` in the YAML file,
3. a row of this table, recognized by the tokens of the tokenizer and by the chat template,
4. start and end of vLLM's `--reasoning-parser`, where only the general rows `think` and
   `think-text` fit, or none.

The start is refused where several rows fit that differ in what matters, and where `--exit-policy`
is set and no family is found. Without a policy, thinking of an unknown family is neither counted
nor ended: the log says so, and each response has `abstained`. Where the reasoning parser disagrees
with the row, the log says so.

Closing text, tool starts and switches are read from the model's own chat template by rendering it;
a row's own hold where the template shows none. `closing_text` and `inducing_prompt`, if set, go
before both. Rows are made from public templates and parsers and were not checked against every
release; of the models themselves only the demo's was run.

{table}

```yaml
family: mine              # or left out, and recognized by its tokens
families:
  mine:
    start: <reason>
    end: </reason>
    closing: "\\n</reason>\\n"
    inducing: "\\nSo the answer is \\\\boxed"
    tokens: ["<|mine|>"]    # of its tokenizer
    template: ["reason"]    # texts of its chat template
    tools: ["<call>"]       # opens a tool call, beside what the template shows
    text: false             # true: start and end are text, not tokens
```
"""


def families() -> str:
    """Return the table of model families and how to add one."""
    table = [
        "| family | models | start, end | on exit | recognized by | switched off by | note |",
        "|---|---|---|---|---|---|---|",
        *(f"| {' | '.join(row_of(family))} |" for family in FAMILIES.values()),
    ]
    return FAMILIES_TEXT.strip().replace("{table}", "\n".join(table))


def row_of(family: Family) -> list[str]:
    """Return the cells of a family's row."""
    closing = "only counts" if not family.exits else code(repr(family.closing)[1:-1])
    opened = "; templates open it" if family.opens else ""
    return [
        f"`{family.name}`",
        family.models,
        f"{code(family.start)} {code(family.end)}{opened}",
        closing,
        " ".join(map(code, family.tokens)) or "these alone",
        family.off,
        family.note.replace("<think>", "`<think>`"),
    ]


def code(text: str) -> str:
    """Format a text as code in a cell of a table."""
    return f"`{escaped(text)}`"


METRICS_HEAD = """
## Metrics

At `/metrics`, beside vLLM's own (`vllm:`). `model_name` is a served model or adapter. `policy` is a
single policy, the server's default, `combined` for other policies joined by +, or `holdout`. Every
other label has a closed set of values.

| name | type | labels | unit | meaning |
|---|---|---|---|---|
"""


def metrics() -> str:
    """Return the metrics of this server."""
    rows = [
        f"| `{each.name}` | {each.kind} | {', '.join(each.labels)} | {each.unit} | {each.help} |"
        for each in METRICS.values()
    ]
    return "\n".join([METRICS_HEAD.strip(), *rows])
