"""A real browser: Debian's Chromium, driven by Playwright."""

import contextlib
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
MOST_MS = 120_000
"""Milliseconds that anything may take: two cores serve the model, the tests, and the browser."""


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """Run Chromium within the context; skip the test where it is not installed.

    No event loop of asyncio can run in the meantime: Playwright's synchronous API has one.
    """
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("no Chromium: install it, on Debian by apt-get install chromium")
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - only where there is a browser

    with sync_playwright() as playwright:
        # Chromium has no sandbox for root, as whom CI runs.
        launched = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield launched
        launched.close()


def open_page(context: Any, url: str, problems: list[str]) -> Any:
    """Open a page that notes errors and requests to other origins in `problems`."""
    page = context.new_page()
    page.set_default_timeout(MOST_MS)
    page.on("pageerror", lambda error: problems.append(f"error: {error}"))
    page.on("console", lambda said: problems.extend([said.text] * (said.type == "error")))
    page.on("request", lambda asked: problems.extend([asked.url] * (not asked.url.startswith(url))))
    page.goto(url)
    return page


def accessibility_violations(page: Any) -> list[str]:
    """Return what axe-core finds."""
    from axe_playwright_python.sync_playwright import Axe  # noqa: PLC0415 - as above

    found = Axe().run(page).response["violations"]
    return [f"{each['id']}: {node['html'][:200]}" for each in found for node in each["nodes"]]
