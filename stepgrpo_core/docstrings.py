"""Docstrings of fields, from which help texts and reference tables are made."""

import ast
import dataclasses
import inspect
from collections.abc import Mapping

__all__ = ["field_docs"]


def field_docs(cls: type) -> Mapping[str, str]:
    """Return the docstring under each field of a dataclass or enumeration, on one line.

    Python keeps them in no attribute, so they are read from the source of the class and of the
    dataclasses that it derives from; raises OSError where that is not installed.
    """
    (definition,) = ast.parse(inspect.getsource(cls)).body
    assert isinstance(definition, ast.ClassDef)
    found: dict[str, str] = {}
    name = ""
    for node in definition.body:
        match node:
            case ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]):
                pass
            case ast.Expr(value=ast.Constant(value=str(text))) if name:
                found.setdefault(name, " ".join(text.split()))
            case _:
                name = ""
    for base in filter(dataclasses.is_dataclass, cls.__bases__):
        found = {**field_docs(base), **found}
    return found
