"""Exits where tools are offered: off by default, and an option of the server."""

from typing import Any

import pytest

from service.params.apis import CHAT, MESSAGES, RESPONSES
from service.records.reasons import Abstained
from tests.support.service.application import PROPER, Application

FUNCTION = {"name": "add", "parameters": {"type": "object", "properties": {}}}
TOOLS: dict[str, list[Any]] = {
    CHAT: [{"type": "function", "function": FUNCTION}],
    RESPONSES: [{"type": "function", **FUNCTION}],
    MESSAGES: [{"name": "add", "input_schema": {"type": "object", "properties": {}}}],
}


@pytest.mark.parametrize("endpoint", TOOLS)
@pytest.mark.parametrize("with_tools", [False, True])
def test_policies_act_on_offered_tools_where_the_server_says_so(
    endpoint: str, with_tools: bool
) -> None:
    application = Application("confidence+budget", with_tools=with_tools)
    asked = application.ask(endpoint, PROPER[endpoint] | {"tools": TOOLS[endpoint]})
    application.close()
    assert asked.status == 200, asked.text
    (effective,) = asked.seen
    if with_tools:
        assert (effective.settings.policy, effective.abstained) == ("confidence+budget", None)
    else:
        assert (effective.settings.policy, effective.abstained) == ("budget", Abstained.TOOLS)
