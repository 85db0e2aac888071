"""The parts of docs/reference.md that describe the server."""

import textwrap
from collections.abc import Mapping

from service.config.access import ACCESS, AccessSettings
from service.config.server import OPTIONS
from service.params import EFFORT, FOREIGN, PARAMETERS
from service.params.limits import ProbeLimits
from service.records.metric_table import METRICS
from service.records.reasons import Abstained
from stepgrpo_core import POLICIES, ExitSettings
from stepgrpo_core.families.table import FAMILIES, Family


def parameters(docs: Mapping[str, str]) -> str:
    """The request parameters, ours and everybody's, and the efforts."""
    ours = [
        f"| `{name}` | {docs[field]} | `{getattr(ExitSettings(), field)}` |"
        for name, (field, _) in PARAMETERS.items()
    ]
    foreign = [f"| {row.ecosystem} | `{row.path}` | {EFFECTS[row.sets]} |" for row in FOREIGN]
    return "\n".join(
        [
            "## Request parameters",
            "",
            (
                f"In `vllm_xargs`. Policies: {', '.join(f'`{name}`' for name in POLICIES)}. "
                "The server's options set the same for requests that say nothing."
            ),
            "",
            "| parameter | meaning | default |",
            "|---|---|---|",
            *ours,
            "",
            "### Of other ecosystems",
            "",
            *wrapped(CONTROLS),
            "",
            "| ecosystem | parameter | sets |",
            "|---|---|---|",
            *foreign,
            "",
            "| effort | thinking may take |",
            "|---|---|",
            *(f"| `{name}` | {worth_of(worth)} |" for name, worth in EFFORT.items()),
        ]
    )


EFFECTS = {
    "switch": "thinking on or off",
    "effort": "an effort, see below",
    "budget": "reasoning tokens; 0: none, -1: no limit",
}
CONTROLS = (
    "All endpoints that generate read all of these, batches of chats included; a key with a dot is "
    "one inside an object. "
    "`vllm_xargs` goes before an explicit budget, that before an effort, that before the server's "
    "defaults. Two that contradict each other, a key that is misspelt or in a wrong place, and a "
    "value that cannot be honoured are refused with 400, which names them. A budget adds `budget` "
    "to the policy (or is the policy, where that was `none` or the server only watches) and is "
    "lowered as far as it takes to leave room for an answer under the token limit. Off, effort "
    "`none` and a budget of 0 reach the chat template by its own switch, and thinking that begins "
    "all the same is closed after its first token. Where the template has no switch a budget of 0 "
    "does that alone, and off is refused. An effort that the chat template does not know is told "
    "it as the nearest that it knows, or not at all; its budget holds all the same. The block "
    "`stepgrpo` of the response shows under `settings` what came of it, and `from` which parameter."
)


def worth_of(worth: float | None) -> str:
    """An entry of the table of efforts in words."""
    if worth is None:
        return "what it likes"
    if worth == 0:
        return "nothing: off"
    return f"{worth:g} of the token limit" if isinstance(worth, float) else f"{worth} tokens"


def wrapped(text: str) -> list[str]:
    """A paragraph in lines of 100 characters."""
    return textwrap.wrap(text, 100)


OPTIONS_TEXT = (
    "For requests that say nothing. A flag of `stepgrpo-serve` goes before the environment, that "
    "before the YAML file of `--exit-config` (or `STEPGRPO_EXIT_CONFIG`), that before the built-in "
    "default. The flag of `max_steps` is `--exit-max-steps`, its variable "
    "`STEPGRPO_EXIT_MAX_STEPS`; a flag of what is on or off takes no value, and has "
    "`--no-exit-...` beside it. In the file "
    "`markers` may be a list and `effort` a mapping. All are checked at start: what cannot be "
    "honoured ends it with one line that names source, key, value and remedy."
)


def options(docs: Mapping[str, str]) -> str:
    """The server's options."""
    rows = [
        f"| `{name}` | {docs.get(name, option.help)} | {default_of(name)} |"
        for name, option in sorted(OPTIONS.items())
    ]
    return "\n".join(
        [
            "## Options of the server",
            "",
            *wrapped(OPTIONS_TEXT),
            "",
            "| option | meaning | default |",
            "|---|---|---|",
            *rows,
        ]
    )


def default_of(name: str) -> str:
    """As Python writes it; "" where an option's text tells."""
    for section in (ExitSettings(), ProbeLimits()):
        if hasattr(section, name):
            return f"`{getattr(section, name)!r}`"
    return ""


ACCESS_TEXT = (
    "A flag of `stepgrpo-serve` goes before the environment: that of `key_rate` is `--key-rate`, "
    "its variable `STEPGRPO_SERVE_KEY_RATE`. What they are for is in "
    "[operations.md](operations.md#security)."
)


def access(docs: Mapping[str, str]) -> str:
    """The server's options of access."""
    rows = [
        f"| `{name}` | {docs[name]} | `{getattr(AccessSettings(), name)!r}` |" for name in ACCESS
    ]
    table = ["| option | meaning | default |", "|---|---|---|", *rows]
    return "\n".join(["## Options of access", "", *wrapped(ACCESS_TEXT), "", *table])


def abstentions(docs: Mapping[str, str]) -> str:
    """Why a policy does not act: the closed set of reasons."""
    text = (
        "Where an exit could not work or a question would mean nothing, the response's block says "
        "`abstained` and why; `policy` is what is left."
    )
    rows = [f"| `{reason}` | {docs[reason.name]} |" for reason in Abstained]
    return "\n".join(
        ["## Abstaining", "", *wrapped(text), "", "| `abstained` | when |", "|---|---|", *rows]
    )


FAMILIES_TEXT = (
    "How models write thinking. The server and the trainer recognise a family by the tokens of its "
    "tokenizer and its chat template and say in the log which it is; `--exit-family` names it. "
    "`families` in the YAML file adds more, which go before these. Where several fit between which "
    "it makes a difference the start is refused. The closing text, tool starts and switches are "
    "read from the model's own chat template, by rendering it; those of a row hold where it shows "
    "none. `closing_text` and `inducing_prompt` go before both if they are not the built-in ones. "
    "Where no row but the last ones fits, vLLM's `--reasoning-parser` is asked for start and end, "
    "and where it disagrees with a row the log says so. Of an unknown family nothing is counted or "
    "ended: the log says so, each response has `abstained`, and with `--exit-policy` the server "
    "does not start. Rows are from public templates and parsers, not checked against every "
    "release; of the models themselves only the demo's was run."
)


def families() -> str:
    """How models write thinking."""
    return "\n".join(
        [
            "## Families of models",
            "",
            *wrapped(FAMILIES_TEXT),
            "",
            "| family | models | start, end | on exit | recognised by | switched off by | note |",
            "|---|---|---|---|---|---|---|",
            *(f"| {' | '.join(row_of(family))} |" for family in FAMILIES.values()),
            "",
            "```yaml",
            "family: mine              # or left out, and recognised by its tokens",
            "families:",
            "  mine:",
            "    start: <reason>",
            "    end: </reason>",
            '    closing: "\\n</reason>\\n"',
            '    inducing: "\\nSo the answer is \\\\boxed"',
            '    tokens: ["<|mine|>"]    # of its tokenizer',
            '    template: ["reason"]    # texts of its chat template',
            '    tools: ["<call>"]       # opens a tool call, beside what the template shows',
            "    text: false             # true: start and end are text, not tokens",
            "```",
        ]
    )


def row_of(family: Family) -> list[str]:
    """The cells of a family's row."""
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
    """As code in a cell of a table."""
    return f"`{text.replace('|', chr(92) + '|')}`"


def metrics() -> str:
    """Every metric of ours."""
    rows = [
        f"| `{each.name}` | {each.kind} | {', '.join(each.labels)} | {each.unit} | {each.help} |"
        for each in METRICS.values()
    ]
    text = """
## Metrics

At `/metrics`, beside vLLM's own (`vllm:`). `model_name` is a served model or adapter. `policy` is a
registered policy, the server's default, `combined` for others that are joined by +, or `holdout`;
every other label has a closed set of values.
"""
    head = ["| name | type | labels | unit | meaning |", "|---|---|---|---|---|"]
    return "\n".join([text.strip(), "", *head, *rows])
