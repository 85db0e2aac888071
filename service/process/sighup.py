"""SIGHUP reopens every file of the server: API keys, request log and state file.

This is the convention of daemons after log rotation. The server also notices moved files by itself,
but only at its next poll or log line. Handling SIGHUP also keeps the server alive when its terminal
is closed.
"""

import asyncio
import logging
import signal

from service.access.keys import KeyRing
from service.records.log_writer import RequestLog
from service.savings.measurement import SavingsMeasurement

__all__ = ["reopen_on_sighup"]

_log = logging.getLogger("vllm.stepgrpo")


def reopen_on_sighup(
    keys: KeyRing, log: RequestLog | None, savings: SavingsMeasurement | None
) -> None:
    """Install the handler in the running event loop, which must be the main thread's."""

    def reopen() -> None:
        _log.info("SIGHUP: reopening API keys, request log and state file.")
        keys.reload()
        if log is not None:
            log.reopen()
        if savings is not None:
            savings.store.reopen()

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reopen)
