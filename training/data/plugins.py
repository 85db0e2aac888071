"""User-defined objects, named ``package.module:name`` as in entry points."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stepgrpo_core import InvalidSetting

__all__ = ["load_object"]


def load_object(name: str, setting: str, fits: Callable[[Any], bool], wanted: str) -> Any:
    """Return the object called `name`, which may be in a module of the current directory.

    Raises InvalidSetting for `setting` if there is no such object, or if it is not `wanted`.
    """
    module, colon, attribute = name.partition(":")
    if not colon or not module or not attribute:
        raise InvalidSetting(setting, name, "write package.module:name")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InvalidSetting(setting, name, f"it cannot be imported ({error})") from error
    if not fits(found):
        raise InvalidSetting(setting, name, f"it is {found!r}; name {wanted}")
    return found
