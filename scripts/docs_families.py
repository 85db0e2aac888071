"""The table of docs/families.md: the checks of each family."""

from scripts.docs_server import code
from tests.support.core.published import FAMILIES, Real

__all__ = ["checked"]


def checked() -> str:
    """Return a table of the published templates that the tests render."""
    head = [
        "| model | recognized as | prompt | on exit | tool call | switches off | vocabulary |",
        "|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*head, *(row_of(name, real) for name, real in FAMILIES.items())])


def row_of(name: str, real: Real) -> str:
    """Return the row of one template."""
    source = "its own" if real.own else f"{real.vocabulary}'s and the template's tokens"
    cells = [
        name,
        f"`{real.family}`",
        {"plain": "not begun"}.get(real.state, real.state),
        code(repr(real.closing)[1:-1]),
        code(real.tool) if real.tool else "-",
        "yes" if real.off else "cannot",
        source,
    ]
    return f"| {' | '.join(cells)} |"
