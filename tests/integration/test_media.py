"""Media behind URLs: fetched from hosts that the operator names, and from nowhere else.

The demo model takes no media, so vLLM's own fetcher is asked, with what the command line sets.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.multimodal.media import MediaConnector

from service.cli import _arguments
from tests.support.servers import MODEL
from tests.support.service.http_server import Handler, LocalServer

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture
def pictures() -> Iterator[tuple[str, list[str]]]:
    """A service in a private network: notes what is asked of it, and sends some elsewhere."""
    asked: list[str] = []

    class Pictures(Handler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(302 if self.path == "/elsewhere" else 404)
            self.send_header("location", "/secret")
            self.send_header("content-length", "0")
            self.end_headers()

    with LocalServer(Pictures).serving() as server:
        yield server.address, asked


def fetch(url: str, *flags: str) -> None:
    """As vLLM does for a message with an image, with the engine's settings of this command line."""
    engine = AsyncEngineArgs.from_cli_args(_arguments([str(MODEL), *flags]))
    connector = MediaConnector(allowed_media_domains=engine.allowed_media_domains)
    asyncio.run(connector.fetch_image_async(url))


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_MEDIA_FETCH_MAX_RETRIES", "1")
    monkeypatch.delenv("VLLM_MEDIA_URL_ALLOW_REDIRECTS", raising=False)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "2130706433", "example.org"])
def test_nothing_is_fetched_unless_its_host_is_named(
    pictures: tuple[str, list[str]], host: str
) -> None:
    url, asked = pictures
    with pytest.raises(ValueError, match="set --allowed-media-domains"):
        fetch(url.replace("127.0.0.1", host) + "/x.png")
    assert asked == []


def test_files_are_not_read() -> None:
    with pytest.raises(RuntimeError, match="--allowed-local-media-path"):
        fetch(f"file://{Path(__file__)}")


def test_a_host_that_is_named_is_asked_and_sends_nobody_elsewhere(
    pictures: tuple[str, list[str]],
) -> None:
    url, asked = pictures
    with pytest.raises(ValueError, match="cannot identify image"):  # what the redirect held
        fetch(f"{url}/elsewhere", "--allowed-media-domains", "127.0.0.1")
    assert set(asked) == {"/elsewhere"}
