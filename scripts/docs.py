"""Generates what can drift in docs/; `make docs` writes it, a test compares it."""

import ast
import dataclasses
import inspect
import os
import re
from pathlib import Path

from service.controls import PARAMETERS
from stepgrpo_core import POLICIES, ExitSettings
from stepgrpo_core.truncation import REASONS, TRANSITIONS, State
from training.cli import build_parser

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
    return {
        architecture: replaced(architecture, "state diagram", diagram()),
        reference: "\n\n".join(
            [
                "# Reference\n\nWritten by `make docs` from the code.",
                parameters(),
                settings(),
                cli(),
            ]
        )
        + "\n",
    }


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


def parameters() -> str:
    """The request parameters of ours."""
    rows = [
        f"| `{name}` | {field_docs()[field]} | `{getattr(ExitSettings(), field)}` |"
        for name, (field, _) in PARAMETERS.items()
    ]
    return "\n".join(
        [
            "## Request parameters",
            "",
            (
                f"In `vllm_xargs`. Policies: {', '.join(f'`{name}`' for name in POLICIES)}. "
                "The server's flags `--exit-...` set the same for requests that say nothing."
            ),
            "",
            "| parameter | meaning | default |",
            "|---|---|---|",
            *rows,
        ]
    )


def settings() -> str:
    """Every field of ExitSettings."""
    rows = [
        f"| `{field.name}` | {field_docs()[field.name]} | `{field.default!r}` |"
        for field in dataclasses.fields(ExitSettings)
    ]
    return "\n".join(
        ["## ExitSettings", "", "| field | meaning | default |", "|---|---|---|", *rows]
    )


def cli() -> str:
    """The help texts of `stepgrpo-train`."""
    os.environ["COLUMNS"] = "100"  # argparse wraps to the terminal
    parser = build_parser()
    commands = parser._subparsers._group_actions[0].choices  # type: ignore[union-attr]
    assert isinstance(commands, dict)
    texts = [f"```text\n{each.format_help().strip()}\n```" for each in commands.values()]
    return "\n\n".join(["## stepgrpo-train", *texts])


def field_docs() -> dict[str, str]:
    """The docstring under each field of ExitSettings, on one line."""
    (definition,) = ast.parse(inspect.getsource(ExitSettings)).body
    assert isinstance(definition, ast.ClassDef)
    found: dict[str, str] = {}
    name = ""
    for node in definition.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name = node.target.id
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and name:
            found[name] = inspect.cleandoc(str(node.value.value)).replace("\n", " ")
    return found


if __name__ == "__main__":
    main()
