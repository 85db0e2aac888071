"""What all tests share."""

import os

import pytest
from hypothesis import settings

pytest.register_assert_rewrite("tests.support")

# What a command printed is read while it runs.
os.environ.setdefault("PYTHONUNBUFFERED", "1")

# Speed is measured by benchmarks; a busy machine is no fault of the code.
settings.register_profile("steady", deadline=None)
settings.load_profile("steady")
