"""User-defined objects, named ``package.module:name`` or by an entry point."""

import importlib.metadata
import inspect
import pkgutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from stepgrpo_core.errors import InvalidSetting

__all__ = ["Kind", "is_own", "load_object", "takes"]

Kind = Literal["graders", "policies", "rewards", "tasks"]
"""Kind of an object; its entry points are in group ``stepgrpo.KIND``."""


def is_own(name: str, kind: Kind) -> bool:
    """Return true if `name` is written as ``package.module:name`` or is an entry point of
    `kind`."""
    return ":" in name or bool(_entry_points(name, kind))


def load_object(
    name: str, setting: str, fits: Callable[[Any], bool], wanted: str, kind: Kind
) -> Any:
    """Return the object called `name`, which may be in a module of the current directory.

    `name` is ``package.module:name``, or an entry point of `kind`. Raises InvalidSetting for
    `setting` if there is no such object, if its module cannot be imported, or if it is not
    `wanted`.
    """
    if ":" not in name:
        for point in _entry_points(name, kind):
            return load_object(point.value, setting, fits, wanted, kind)
    module, colon, attribute = name.partition(":")
    if not colon or not module or not attribute:
        raise InvalidSetting(setting, name, "write package.module:name")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        found = pkgutil.resolve_name(name)
    except Exception as error:  # the module runs here, and may raise anything
        problem = f"it cannot be imported ({type(error).__name__}: {error})"
        raise InvalidSetting(setting, name, problem) from error
    if not fits(found):
        raise InvalidSetting(setting, name, f"it is {found!r}; name {wanted}")
    return found


def _entry_points(name: str, kind: Kind) -> importlib.metadata.EntryPoints:
    return importlib.metadata.entry_points(group=f"stepgrpo.{kind}", name=name)


def takes(count: int) -> Callable[[Any], bool]:
    """Return a check that an object is a function of `count` positional arguments."""

    def fits(found: Any) -> bool:
        if not callable(found) or isinstance(found, type):
            return False
        try:
            inspect.signature(found).bind(*range(count))
        except TypeError:
            return False
        except ValueError:  # written in C, without a signature
            return True
        return True

    return fits
