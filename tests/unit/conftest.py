"""What unit tests share."""

import logging
from collections.abc import Iterator

import pytest

LOGGER = "vllm.stepgrpo"


@pytest.fixture
def caplog(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Iterator[pytest.LogCaptureFixture]:
    """Hears our logger itself: vLLM's, above it, hands nothing on once vLLM is imported."""
    logger = logging.getLogger(LOGGER)
    monkeypatch.setattr(logger, "propagate", False)
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)
