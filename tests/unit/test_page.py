"""The files of the page: who gets them, and with which headers."""

from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from service.access.keys import KeyRing
from service.access.limits import KeyLimits
from service.access.middleware import Access, Rules
from service.page.files import FOLDER, Page
from stepgrpo_core import ExitReason


def client(*, page: bool = True, root: str = "") -> TestClient:
    app = FastAPI()
    app.add_middleware(Access)
    app.add_middleware(Page)
    rules = Rules(KeyRing(["key"], None), KeyLimits(None, None), 1000, page=page)
    app.state.args = SimpleNamespace(access=rules)
    return TestClient(app, root_path=root)


def policy_of(response: Any) -> dict[str, str]:
    parts = (
        part.partition(" ") for part in response.headers["content-security-policy"].split("; ")
    )
    return {name: value for name, _, value in parts}


def test_anyone_gets_the_page_and_only_its_files() -> None:
    asked = client()
    shown = asked.get("/")
    assert (shown.status_code, shown.headers["content-type"]) == (200, "text/html; charset=utf-8")
    for path in FOLDER.iterdir():
        response = asked.get(f"/page/{path.name}")
        assert (response.status_code, response.content) == (200, path.read_bytes())
        assert response.headers["x-content-type-options"] == "nosniff"
    script = asked.get("/page/main.js").headers["content-type"]
    assert script == "text/javascript; charset=utf-8"


@pytest.mark.parametrize(
    "path", ["/page/", "/page/../files.py", "/page/%2e%2e/files.py", "/page/x", "/index.html", "/x"]
)
def test_every_other_path_needs_a_key(path: str) -> None:
    assert client().get(path).status_code == 401


def test_other_methods_need_a_key() -> None:
    asked = client()
    head = asked.head("/")
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["content-length"]) == len(asked.get("/").content)
    assert asked.post("/").status_code == 401


def test_switched_off_there_is_no_page() -> None:
    asked = client(page=False)
    assert asked.get("/").status_code == asked.get("/page/main.js").status_code == 401
    assert asked.get("/", headers={"authorization": "Bearer key"}).status_code == 404


def test_below_a_root_path_its_links_are_relative() -> None:
    asked = client(root="/llm")
    assert asked.get("/llm/").content == asked.get("/").content
    text = (FOLDER / "index.html").read_text()
    assert 'src="page/main.js"' in text
    assert not any(link in text for link in ('="/', "http:", "https:", "style=", "onclick="))


def test_it_has_words_for_every_exit_reason() -> None:
    words = (FOLDER / "words.js").read_text()
    assert [reason for reason in ExitReason if f'  {reason}: "' not in words] == []


def test_nothing_but_its_own_origin_may_run_or_be_asked() -> None:
    policy = policy_of(client().get("/"))
    assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
    for kind in ("script-src", "style-src", "connect-src", "img-src"):
        assert policy[kind] == "'self'"
    assert policy["require-trusted-types-for"] == "'script'"
