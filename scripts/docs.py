"""Generator of the parts of docs/ that could drift: `make docs` writes, and a test compares."""

import argparse
import dataclasses
import os
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scripts.dashboards import dashboards
from scripts.docs_families import checked
from scripts.docs_server import (
    abstentions,
    access,
    code,
    escaped,
    families,
    metrics,
    options,
    parameters,
)
from stepgrpo_core import REWARDS
from stepgrpo_core.control.states import REASONS, TRANSITIONS, State
from stepgrpo_core.docstrings import field_docs
from training.cli import build_parser
from training.config.schema import (
    GradingConfig,
    LoraSettings,
    ModelConfig,
    RewardConfig,
    RolloutConfig,
    RunConfig,
    SftSettings,
    preset_names,
)
from training.data.dataset import DataConfig, Source

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- generated: {} -->", "<!-- end of generated -->"


def main() -> None:
    """Write every generated part."""
    for path, text in generated().items():
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(ROOT))


def generated() -> dict[Path, str]:
    """Return the text of each file with its generated parts up to date."""
    architecture = ROOT / "docs" / "architecture.md"
    reference = ROOT / "docs" / "reference.md"
    models = ROOT / "docs" / "families.md"
    return dashboards() | {
        ROOT / "deploy/kubernetes/monitoring/prometheusrule.yaml": prometheus_rule(),
        architecture: replaced(architecture, "state diagram", diagram()),
        models: replaced(models, "families checked", checked()),
        reference: "\n\n".join(
            [
                "# Reference\n\nWritten by `make docs` from the code.",
                parameters(),
                options(),
                access(),
                abstentions(),
                families(),
                metrics(),
                configuration(),
                rewards(),
                cli(),
            ]
        )
        + "\n",
    }


def prometheus_rule() -> str:
    """Return Prometheus's rules as the object that its operator for Kubernetes reads."""
    rules = (ROOT / "deploy" / "prometheus" / "rules.yml").read_text(encoding="utf-8")
    return (
        "# Made by `make docs` from deploy/prometheus/rules.yml.\n"
        "apiVersion: monitoring.coreos.com/v1\n"
        "kind: PrometheusRule\n"
        "metadata:\n"
        "  name: stepgrpo\n"
        "  labels: {app.kubernetes.io/name: stepgrpo}\n"
        "spec:\n" + textwrap.indent(rules, "  ")
    )


def replaced(path: Path, name: str, text: str) -> str:
    """Return the text of a file with its named generated part replaced."""
    begin = BEGIN.format(name)
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(END)}", re.DOTALL)
    return pattern.sub(lambda _: f"{begin}\n{text}\n{END}", path.read_text(encoding="utf-8"))


def diagram() -> str:
    """Return the controller's tables as a Mermaid state diagram."""
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> PRELUDE", "    [*] --> THINKING"]
    for state, moves in TRANSITIONS.items():
        for signal, after in moves.items():
            reasons = sorted(REASONS.get((state, signal), ()))
            label = signal.value + (f": {', '.join(reasons)}" if reasons else "")
            lines.append(f"    {state.value} --> {after.value}: {label}")
    return "\n".join([*lines, f"    {State.DONE.value} --> [*]", "```"])


SECTIONS = {
    "The top level": RunConfig,
    "model": ModelConfig,
    "data": DataConfig,
    "data.train[], data.exclude[]": Source,
    "rollout": RolloutConfig,
    "reward": RewardConfig,
    "grading": GradingConfig,
    "lora": LoraSettings,
    "sft": SftSettings,
}
CONFIGURATION = """
## Configuration of a run

The first of these that sets a key wins:

1. an argument of `stepgrpo-train`: `rollout.exit.threshold=0.9`, of several the last,
2. a preset or YAML file of `--config`, of several the last,
3. the preset or file that a file names under `extends`,
4. the default.

Presets: {presets}.

`rollout.exit` holds the [exit settings](#exit-settings), `trl` the fields of TRL's GRPOConfig.
`None` is `null` in YAML.
"""


def configuration() -> str:
    """Return the sections of a training run's configuration."""
    presets = ", ".join(f"`{name}`" for name in preset_names())
    parts = [CONFIGURATION.strip().replace("{presets}", presets)]
    for name, section in SECTIONS.items():
        parts += ["", f"### {name}", "", *field_table(section)]
    return "\n".join(parts)


def rewards() -> str:
    """Return the rewards with their constants."""
    parts = [
        "## Rewards",
        "",
        "Names for `reward.name`; the fields of each go into `reward.settings`.",
    ]
    for name, reward in REWARDS.items():
        parts += ["", f"### {name}", "", f"{reward.source}."]
        if dataclasses.fields(reward):
            parts += ["", *field_table(reward)]
    return "\n".join(parts)


def field_table(cls: type[Any]) -> list[str]:
    """Return the fields of a dataclass, one row each."""
    docs = field_docs(cls)
    rows = [
        f"| `{field.name}` | {escaped(docs[field.name])} | {default_of(field)} |"
        for field in dataclasses.fields(cls)
    ]
    return ["| field | meaning | default |", "|---|---|---|", *rows]


def default_of(field: dataclasses.Field[Any]) -> str:
    """Return a default as Python writes it; a section has those of its fields."""
    if field.default is not dataclasses.MISSING:
        value = field.default
    elif field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    else:
        return "required"
    return "of its fields" if dataclasses.is_dataclass(value) else code(repr(value))


def cli() -> str:
    """Return the help texts of `stepgrpo-train`."""
    os.environ["COLUMNS"] = "100"  # argparse wraps at the terminal's width
    texts = [f"```text\n{each.format_help().strip()}\n```" for each in commands_of(build_parser())]
    return "\n\n".join(["## stepgrpo-train", *texts])


def commands_of(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Yield the parsers of all commands, each command of a group after the group."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                below = list(commands_of(each))
                yield from below or [each]


if __name__ == "__main__":
    main()
