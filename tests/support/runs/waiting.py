"""A process that does nothing until it is terminated."""

import os
import time
from collections.abc import Callable
from pathlib import Path

from training.run.checkpoints import RunStopped


def wait_for_the_end(marker: Path, stopping: Callable[[], bool]) -> None:
    marker.write_text(str(os.getpid()))
    while not stopping():
        time.sleep(0.05)
    raise RunStopped("asked to")
