"""What all tests share."""

import os

import pytest
from hypothesis import settings

from tests.support.servers import STARTING
from tests.support.zygote import popen, warm

# Threads that wait for each other burn the cores of whatever else runs here. Read on import.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# What a command printed is read while it runs.
os.environ.setdefault("PYTHONUNBUFFERED", "1")

# Servers and trainers are forked from a process that has made their imports.
STARTING.launch = popen


def pytest_collection_finish(session: pytest.Session) -> None:
    """Those imports are made beside the first tests."""
    if any(item.get_closest_marker("integration") for item in session.items):
        warm()


# Speed is measured by benchmarks; a busy machine is no fault of the code.
settings.register_profile("quick", deadline=None, max_examples=25)
settings.register_profile("few", deadline=None, max_examples=10)  # for coverage: `make test-core`
settings.register_profile("thorough", deadline=None, max_examples=100)  # `make test-properties`
settings.load_profile("quick")
