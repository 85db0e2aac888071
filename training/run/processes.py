"""What one process of a run decides for all."""

from collections.abc import Callable
from typing import TypeVar

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

__all__ = ["on_main"]

T = TypeVar("T")


def on_main(function: Callable[[], T]) -> T:
    """Result of `function`, called by the main process alone; every process calls this.

    What it raises ends the main process, and with it the others.
    """
    box = [function() if PartialState().is_main_process else None]
    broadcast_object_list(box)
    found: T = box[0]  # type: ignore[assignment]
    return found
