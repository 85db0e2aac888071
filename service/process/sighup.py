"""SIGHUP: every file that the server keeps open is opened anew, and nothing else happens.

As other daemons do it after files were moved. All are followed without it, too, and a request log
may have no line for long: this is for who does not want to wait. It also means that a terminal that
is closed takes no request with it.
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
    """Have SIGHUP do so from now on; in the event loop of the main thread."""

    def reopen() -> None:
        _log.info("SIGHUP: API keys, request log and state file are opened anew.")
        keys.reload()
        if log is not None:
            log.reopen()
        if savings is not None:
            savings.store.reopen()

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reopen)
