"""Choice of MASTER_PORT, the port at which the processes of a run meet."""

import os
import socket
from collections.abc import MutableMapping

from stepgrpo_core.errors import InvalidSetting

__all__ = ["choose_port", "free_port"]


def free_port() -> int:
    """Return a free TCP port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def choose_port(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set MASTER_PORT to a free port unless it is set or a launcher started this process.

    TRL's default, 29500, would collide with other runs on the machine. Raises InvalidSetting for a
    port that is set and in use.
    """
    if "RANK" in environment:
        return  # the launcher already listens there
    port = environment.get("MASTER_PORT", "").strip().lower()
    if port in ("", "0", "auto"):
        environment["MASTER_PORT"] = str(free_port())
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", int(port)))
        except (OSError, OverflowError, ValueError) as error:
            remedy = f"the port cannot be bound ({error}); unset it to use a free one"
            raise InvalidSetting("MASTER_PORT", port, remedy) from error
