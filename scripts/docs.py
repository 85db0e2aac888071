"""Generates what can drift in docs/; `make docs` writes it, a test compares it."""

import argparse
import ast
import dataclasses
import inspect
import os
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scripts.dashboards import dashboards
from scripts.docs_families import checked
from scripts.docs_server import abstentions, access, families, metrics, options, parameters
from service.config.access import AccessSettings
from service.params.limits import ProbeLimits
from service.records.reasons import Abstained
from stepgrpo_core import REWARDS, ExitSettings
from stepgrpo_core.control.states import REASONS, TRANSITIONS, State
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
    """Each file with its generated parts as they should be."""
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
                parameters(field_docs(ExitSettings)),
                options(field_docs(ExitSettings) | field_docs(ProbeLimits)),
                access(field_docs(AccessSettings)),
                abstentions(field_docs(Abstained)),
                families(),
                metrics(),
                settings(),
                configuration(),
                rewards(),
                cli(),
            ]
        )
        + "\n",
    }


def prometheus_rule() -> str:
    """Prometheus's rules as the object that its operator for Kubernetes reads."""
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
    """The file with the named generated part exchanged."""
    begin = BEGIN.format(name)
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(END)}", re.DOTALL)
    return pattern.sub(lambda _: f"{begin}\n{text}\n{END}", path.read_text(encoding="utf-8"))


def diagram() -> str:
    """The controller's tables as a Mermaid state diagram."""
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> PRELUDE", "    [*] --> THINKING"]
    for state, moves in TRANSITIONS.items():
        for signal, after in moves.items():
            reasons = sorted(REASONS.get((state, signal), ()))
            label = signal.value + (f": {', '.join(reasons)}" if reasons else "")
            lines.append(f"    {state.value} --> {after.value}: {label}")
    return "\n".join([*lines, f"    {State.DONE.value} --> [*]", "```"])


def settings() -> str:
    """Every field of ExitSettings."""
    return "\n".join(["## ExitSettings", "", *field_table(ExitSettings)])


def configuration() -> str:
    """Every section of a training run's configuration."""
    sections = {
        "the top level": RunConfig,
        "model": ModelConfig,
        "data": DataConfig,
        "data.train[], data.exclude[]": Source,
        "rollout": RolloutConfig,
        "reward": RewardConfig,
        "grading": GradingConfig,
        "lora": LoraSettings,
        "sft": SftSettings,
    }
    presets = ", ".join(f"`{name}`" for name in preset_names())
    parts = [
        "## Configuration of a run",
        "",
        f"Presets: {presets}. `rollout.exit` holds ExitSettings, `trl` fields of TRL's GRPOConfig.",
    ]
    for name, section in sections.items():
        parts += ["", f"### {name}", "", *field_table(section)]
    return "\n".join(parts)


def rewards() -> str:
    """Every method with its constants."""
    parts = ["## Rewards", "", "`reward.name`, and `reward.settings`."]
    for name, reward in REWARDS.items():
        parts += ["", f"### {name}", "", f"{reward.source}."]
        if dataclasses.fields(reward):
            parts += ["", *field_table(reward)]
    return "\n".join(parts)


def field_table(cls: type[Any]) -> list[str]:
    """The fields of a dataclass, one row each."""
    docs = field_docs(cls)
    rows = [
        f"| `{field.name}` | {docs[field.name]} | {default_of(field)} |"
        for field in dataclasses.fields(cls)
    ]
    return ["| field | meaning | default |", "|---|---|---|", *rows]


def default_of(field: dataclasses.Field[Any]) -> str:
    """Its default as Python writes it; a section of its own is only named."""
    if field.default is not dataclasses.MISSING:
        value = field.default
    elif field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    else:
        return "required"
    return "see there" if dataclasses.is_dataclass(value) else f"`{value!r}`"


def cli() -> str:
    """The help texts of `stepgrpo-train`."""
    os.environ["COLUMNS"] = "100"  # argparse wraps to the terminal
    texts = [f"```text\n{each.format_help().strip()}\n```" for each in commands_of(build_parser())]
    return "\n\n".join(["## stepgrpo-train", *texts])


def commands_of(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Every command that runs something, those below others in their place."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                below = list(commands_of(each))
                yield from below or [each]


def field_docs(cls: type[Any]) -> dict[str, str]:
    """The docstring under each field of a dataclass or enumeration, on one line."""
    (definition,) = ast.parse(inspect.getsource(cls)).body
    assert isinstance(definition, ast.ClassDef)
    found: dict[str, str] = {}
    name = ""
    for node in definition.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name = node.target.id
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and name:
            text = inspect.cleandoc(str(node.value.value)).replace("\n", " ")
            found.setdefault(name, text.replace("|", "\\|"))
    return found


if __name__ == "__main__":
    main()
