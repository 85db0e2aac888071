"""Request parameters and the settings that result from them."""

from typing import Any

import pytest

from service.params import (
    BadParameter,
    Effective,
    Template,
    effective_settings,
    read_body,
    to_vllm_body,
)
from stepgrpo_core import ExitSettings
from tests.support.core.scripted import THINKING

DEFAULTS = ExitSettings(policy="confidence", threshold=0.8)
CHAT = "/v1/chat/completions"
QWEN = Template(("enable_thinking",))


def settled(
    body: dict[str, Any],
    defaults: ExitSettings = DEFAULTS,
    *,
    endpoint: str = CHAT,
    template: Template = QWEN,
    limit: int = 1000,
) -> Effective:
    """Return the effective settings of a whole request."""
    _, asked = to_vllm_body(body, read_body(body), endpoint, template)
    return effective_settings(
        body.get("vllm_xargs"), defaults, asked, limit=limit, closing=len(THINKING.closing_ids)
    )


def refused(body: dict[str, Any], **options: Any) -> BadParameter:
    with pytest.raises(BadParameter) as caught:
        settled(body, **options)
    return caught.value
