"""The page on a server with API keys: it asks for one, and tells limits in words."""

import contextlib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.chat import messages
from tests.support.observing.browser import accessibility_violations, browser, open_page
from tests.support.servers import Server
from tests.support.service.keys import SEATS

pytestmark = [pytest.mark.integration, pytest.mark.slow]

KEY = "filed-secret-2"


@pytest.fixture
def page(guarded: Server) -> Iterator[Any]:
    with browser() as launched:
        yield open_page(launched.new_context(), f"{guarded.url}/", [])


def use_key(page: Any, key: str) -> None:
    page.fill("#key-value", key)
    page.click("text=Use this key")


def test_it_asks_for_a_key_and_keeps_it_in_memory_only(page: Any) -> None:
    page.wait_for_selector("#key[open]")
    assert "This server needs an API key." in page.inner_text("#key")
    assert accessibility_violations(page) == []
    use_key(page, "no-key-of-this-server")
    page.wait_for_selector("text=The server does not know this API key. The page")
    use_key(page, KEY)
    page.wait_for_selector("#right-model option", state="attached")
    page.click("text=47+8-5+9")
    page.click("#start")
    page.wait_for_selector("#saved")
    page.click("#to-live")
    page.wait_for_selector("#recent button")
    assert page.is_hidden("#live-notice")  # metrics have a port of their own here
    stored = "[localStorage.length, sessionStorage.length, document.cookie]"
    assert page.evaluate(stored) == [0, 0, ""]
    page.click("#to-race")
    assert KEY not in page.content()
    assert "$API_KEY" in page.text_content("#curl")
    page.reload()
    page.wait_for_selector("#key[open]")


def test_a_limit_is_told_in_words(page: Any, guarded: Server) -> None:
    page.wait_for_selector("#key[open]")
    use_key(page, KEY)
    page.wait_for_selector("#right-model option", state="attached")
    long = {"model": "demo-base", "messages": messages(), "stream": True, "ignore_eos": True}
    headers = {"authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=guarded.url, timeout=120) as client, contextlib.ExitStack() as held:
        for _ in range(SEATS):
            body = long | {"max_tokens": 1900}
            held.enter_context(
                client.stream("POST", "/v1/chat/completions", json=body, headers=headers)
            )
        page.click("#start")
        page.wait_for_selector(".lane.left .failure")
    assert "Too many requests for this API key." in page.inner_text(".lane.left .failure")
    assert "Try again in 1 second." in page.inner_text(".lane.left .failure")
