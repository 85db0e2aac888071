"""The page at / in real Chromium, against the README's server with both demo models.

With SCREENSHOTS=docs the tests also write the screenshots of the documents there.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.observing.browser import accessibility_violations, browser, open_page
from tests.support.servers import ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.background]

MARKUP = "<img src=x onerror=alert(1)> <b>Compute 47+8-5+9.</b>"
DESKTOP, PHONE = {"width": 1280, "height": 1000}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as launched:
        yield launched


@pytest.fixture
def problems() -> list[str]:
    return []


@pytest.fixture
def context(chromium: Any) -> Iterator[Any]:
    opened = chromium.new_context(viewport=DESKTOP)
    yield opened
    opened.close()


@pytest.fixture
def page(context: Any, served: int, problems: list[str]) -> Any:
    return ready(open_page(context, url_of(served), problems))


def url_of(served: int) -> str:
    return f"http://127.0.0.1:{served}/"


def ready(page: Any) -> Any:
    page.wait_for_selector("#right-model option", state="attached")
    return page


def race(page: Any) -> None:
    page.click("#start")
    page.wait_for_selector("#saved")


def shoot(page: Any, name: str) -> None:
    """Write a screenshot if the caller wants them."""
    if folder := os.environ.get("SCREENSHOTS"):
        path = ROOT / folder / f"page-{name}.png"
        page.screenshot(path=path, animations="disabled", full_page=name != "explain")


def responses(served: int) -> dict[str, Any]:
    """Return the last response under each policy, as the API reports it."""
    listed = httpx.get(f"{url_of(served)}v1/stepgrpo/responses").json()["data"]
    return {each["stepgrpo"]["policy"]: each for each in reversed(listed)}


def text(page: Any, selector: str) -> str:
    return str(page.inner_text(selector))


def test_the_race_shows_what_the_api_reports(page: Any, served: int, problems: list[str]) -> None:
    race(page)
    shoot(page, "race")
    found = responses(served)
    full, exited = found["none"], found["confidence"]
    for side, each in (("left", full), ("right", exited)):
        assert text(page, f"#{side}-tokens") == str(each["usage"]["completion_tokens"])
        assert text(page, f"#{side}-steps") == str(each["stepgrpo"]["steps"])
        assert text(page, f"#{side}-probes") == str(each["stepgrpo"]["probes"])
        assert page.locator(f".lane.{side} .step").count() == each["stepgrpo"]["steps"]
    check_comparison(page, full, exited)
    probes = [each for each in exited["timeline"] if each["event"] == "probe"]
    assert probes[-1]["result"] == "fired"
    for shown, probe in zip(page.locator(".lane.right .probe").all(), probes, strict=True):
        assert f"{probe['confidence']:.2f}" in shown.inner_text()
    assert "Exit: confident" in text(page, ".lane.right .end.exit")
    markers = page.locator(".lane.left mark").all_inner_texts()
    assert len(markers) == full["stepgrpo"]["steps"] - 1
    assert set(markers) <= {"Wait", "Alternatively"}
    assert problems == []


def check_comparison(page: Any, full: dict[str, Any], exited: dict[str, Any]) -> None:
    """Check the result against the API's tokens and the answers in the lanes."""
    saved = full["usage"]["completion_tokens"] - exited["usage"]["completion_tokens"]
    left, right = (
        re.findall(r"boxed\{(.*?)\}", text(page, f".lane.{side} .answer"))[-1]
        for side in ("left", "right")
    )
    if left == right:
        assert text(page, "#saved") == f"Saved {saved} tokens (measured)"
        assert text(page, "#agreement") == f"Same answer: {left}"
    else:
        assert text(page, "#saved") == f"{saved} tokens fewer, but another answer (measured)"
        told = f"Answers differ: {left} on the left, {right} on the right"
        assert text(page, "#agreement") == told


def test_an_exit_that_changes_the_answer_is_told(page: Any, served: int) -> None:
    page.click("text=45+6+9-4+4")
    race(page)
    found = responses(served)
    check_comparison(page, found["none"], found["confidence"])


def test_the_trained_model_races_its_base(page: Any, served: int) -> None:
    page.click("text=47+8-5+9")
    page.select_option("#right-model", "demo-step-grpo")
    page.select_option("#right-policy", "none")
    race(page)
    trained, base = httpx.get(f"{url_of(served)}v1/stepgrpo/responses").json()["data"][:2][::-1]
    assert {trained["model"], base["model"]} == {"demo-base", "demo-step-grpo"}
    assert int(text(page, "#right-tokens")) < int(text(page, "#left-tokens"))
    assert "which runs another model" in text(page, "#result")


def test_live_shows_the_totals_and_explains_a_request(
    page: Any, served: int, problems: list[str]
) -> None:
    race(page)
    page.click("#to-live")
    page.wait_for_selector("#recent button")
    metrics = httpx.get(f"{url_of(served)}metrics").text
    saved = re.findall(r"^stepgrpo_saved_tokens_total\{.*\} (\S+)$", metrics, re.MULTILINE)
    assert text(page, "#tiles li:nth-child(3) b") == f"{sum(map(float, saved)):,.0f}"
    assert "predicted" in text(page, "#savings")
    assert "confident" in text(page, "#reasons")
    shoot(page, "live")
    page.locator("#recent tr", has_text="confident").first.get_by_role("button").click()
    page.wait_for_selector("#explain[open] .events")
    shoot(page, "explain")
    block = responses(served)["confidence"]["stepgrpo"]
    assert "more confident than the threshold" in text(page, "#explain")
    assert f"{block['reasoning_tokens']} tokens in {block['steps']} steps" in text(page, "#explain")
    assert accessibility_violations(page) == []
    assert problems == []


@pytest.mark.parametrize(("scheme", "size"), [("dark", DESKTOP), ("light", PHONE)])
def test_axe_finds_nothing(chromium: Any, served: int, scheme: str, size: dict[str, int]) -> None:
    context = chromium.new_context(viewport=size, color_scheme=scheme)
    try:
        page = ready(open_page(context, url_of(served), []))
        race(page)
        page.wait_for_timeout(300)  # until cards have faded in
        page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
        assert accessibility_violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]

        page.click("#to-live")
        page.wait_for_selector("#recent button")
        assert accessibility_violations(page) == []
    finally:
        context.close()


def test_markup_is_shown_as_text(page: Any, problems: list[str]) -> None:
    """The model repeats no markup, so the views get chunks whose every text is some."""
    page.evaluate(
        """async (markup) => {
          const { Lane } = await import("/page/lane.js");
          const lane = new Lane("other", { changed() {}, answerNow() {}, explain() {} });
          document.querySelector("#lanes").append(lane.element);
          lane.offer([markup], [markup], markup, markup);
          lane.start(0.5);
          const thinking = { delta: { reasoning: `${markup} Wait ${markup}` } };
          lane.take({ id: markup, choices: [thinking] });
          const events = [
            { event: "step", steps: 2, marker: "Wait" },
            { event: "probe", probe: 0, steps: 1, result: markup, confidence: 0.25 },
            { event: "cut", reason: markup },
          ];
          lane.take({ choices: [{ delta: { content: markup } }], stepgrpo_events: events });
          lane.fail(markup);
        }""",
        MARKUP,
    )
    assert page.locator(".lane.other img, .lane.other .text b").count() == 0
    shown = page.locator(".lane.other .steps").inner_text()
    assert shown.count(MARKUP) == 6  # two steps, exit and its reason, answer, failure
    assert problems == []


def test_nothing_becomes_html_even_if_the_page_tried(page: Any) -> None:
    refused = page.evaluate(
        "() => { try { document.body.innerHTML = '<b>x</b>'; } catch (e) { return e.name; } }"
    )
    assert refused == "TypeError"


def test_a_problem_that_does_not_fit_is_told_in_words(page: Any) -> None:
    page.fill("#question", "1+1 " * 3000)
    page.click("#start")
    page.wait_for_selector(".lane.left .failure")
    assert "do not fit into the model’s context" in text(page, ".lane.left .failure")
    assert text(page, "#result") == "A lane failed: there is nothing to compare."


def test_a_server_that_is_gone_is_told_in_words(page: Any, context: Any) -> None:
    context.set_offline(True)
    page.click("#start")
    page.wait_for_selector(".lane.right .failure")
    assert "cannot be reached" in text(page, ".lane.right .failure")
    assert page.is_enabled("#start")
    context.set_offline(False)
    page.click("text=47+8-5+9")
    race(page)


def test_answer_now_ends_the_thinking(page: Any, served: int) -> None:
    page.click("#start")
    page.click(".lane.left >> text=Answer now")
    page.wait_for_selector("#saved")
    assert responses(served)["none"]["stepgrpo"]["exit_reason"] == "client"
    assert "Exit: client" in text(page, ".lane.left .end.exit")


def test_the_snippets_run(page: Any, served: int, tmp_path: Path) -> None:
    page.click("#settings summary")
    page.fill("#threshold", "0.9")
    curl, python = page.text_content("#curl"), page.text_content("#python")
    made = tmp_path / "request.py"
    made.write_text(python)
    for command in (["bash", "-c", curl], [sys.executable, str(made)]):
        result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
        assert "boxed{" in result.stdout
        assert responses(served)["confidence"]["stepgrpo"]["settings"]["threshold"] == 0.9


def test_the_whole_page_is_small(served: int) -> None:
    folder = ROOT / "service" / "page" / "static"
    assert sum(path.stat().st_size for path in folder.iterdir()) < 150_000
    for path in folder.iterdir():
        response = httpx.get(f"{url_of(served)}page/{path.name}")
        assert response.content == path.read_bytes()
        assert "unsafe" not in response.headers["content-security-policy"]
