"""Objects of the user's own, named ``package.module:name`` as in entry points."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stepgrpo_core import InvalidSetting

__all__ = ["load_object"]


def load_object(name: str, setting: str, fits: Callable[[Any], bool], wanted: str) -> Any:
    """Return the object called `name`, also from a module in the current directory.

    Raises InvalidSetting, in the name of `setting`, where there is none or it is not `wanted`.
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
