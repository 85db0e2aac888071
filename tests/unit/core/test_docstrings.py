"""Docstrings of fields are found by the field's name."""

import enum
from dataclasses import dataclass

from stepgrpo_core.docstrings import field_docs


@dataclass(frozen=True, slots=True)
class Fields:
    """Not of a field."""

    first: int = 0
    """One
    line."""
    bare: int = 0
    last: int = 0
    """Last."""

    def method(self) -> int:
        return self.first

    """After a method."""


class Names(enum.Enum):
    ONE = 1
    """Of a member."""


def test_each_docstring_belongs_to_the_field_above_it() -> None:
    assert field_docs(Fields) == {"first": "One line.", "last": "Last."}
    assert field_docs(Names) == {"ONE": "Of a member."}
