"""What unit tests share."""

import logging
from collections.abc import Iterator

import pytest

LOGGER = "vllm.stepgrpo"


@pytest.fixture
def caplog(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Iterator[pytest.LogCaptureFixture]:
    """Hears our logger itself. vLLM's, above it, hands nothing on once vLLM is imported, and takes
    errors alone where TRL was imported before."""
    logger = logging.getLogger(LOGGER)
    monkeypatch.setattr(logger, "propagate", False)
    caplog.set_level(logging.INFO, LOGGER)
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)
