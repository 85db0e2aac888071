"""Streams whose thinking does not end by itself, and clients that ask to finish it."""

import json
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.support.chat import messages
from tests.support.models import END, EOS
from tests.support.servers import Server

MAX_TOKENS = 1900
# Logit biases: no thinking ends by itself; an answer ends, or not even that.
THINKS_ON = {str(END): -100, str(EOS): -12}
NEVER_ENDS = {str(END): -100, str(EOS): -100}
CHAT = "/v1/chat/completions"


def chat_body(**options: Any) -> dict[str, Any]:
    return {
        "model": "demo-base",
        "messages": messages(),
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_token_ids": True,
        "temperature": 0,
        "max_tokens": MAX_TOKENS,
        "logit_bias": THINKS_ON,
        **options,
    }


TRIES = 6
NOT_FOUND = 404


@dataclass
class Streamed:
    """The events of a stream, and the response to each request to finish."""

    events: list[dict[str, Any]] = field(default_factory=list)
    answers: list[httpx.Response] = field(default_factory=list)

    @property
    def block(self) -> dict[str, Any]:
        found: dict[str, Any] = self.events[-1]["stepgrpo"]
        return found

    def choice(self, name: str, index: int = 0) -> list[Any]:
        found = [c for e in self.events for c in e.get("choices", ()) if c["index"] == index]
        return [value for c in found if (value := (c.get("delta") or c).get(name, c.get(name)))]

    def text(self, name: str, index: int = 0) -> str:
        return "".join(self.choice(name, index))

    @property
    def ids(self) -> list[int]:
        return [token for part in self.choice("token_ids") for token in part]


def wished(
    server: Server,
    body: dict[str, Any],
    *,
    path: str = CHAT,
    after: int = 8,
    keys: tuple[str | None, ...] = ("mine",),
    when: str = "",
    leave: bool = False,
) -> Streamed:
    """Stream `body` with the last key, and request the end of its thinking with each of `keys`.

    The request is sent after so many events, once one of them contains `when`; then the stream is
    read to its end, or left. An engine that keeps all cores busy can be done, or can be answering,
    before the server reads the request; such a try is inconclusive and is repeated.
    """
    for _ in range(TRIES):
        found = _wished(server, body, path, after, keys, when, leave)
        if when == "final" or not all(map(_too_late, found.answers)):
            break
    return found


def _too_late(answer: httpx.Response) -> bool:
    return answer.status_code == NOT_FOUND or answer.json().get("sequences") == 0


def _wished(
    server: Server,
    body: dict[str, Any],
    path: str,
    after: int,
    keys: tuple[str | None, ...],
    when: str,
    leave: bool,
) -> Streamed:
    found = Streamed()
    with (
        httpx.Client(base_url=server.url, timeout=120) as client,
        client.stream("POST", path, json=body, headers=bearer(keys[-1])) as response,
    ):
        assert response.status_code == 200, response.read()
        seen = False
        for line in response.iter_lines():
            if not line.startswith("data: {"):
                continue
            found.events.append(json.loads(line.removeprefix("data: ")))
            seen = seen or when in line
            if seen and len(found.events) >= after and not found.answers:
                name = id_in(found.events)
                for key in keys:
                    found.answers.append(finish(client, name, key, path))
                if leave:
                    break
    return found


def bearer(key: str | None) -> dict[str, str]:
    return {} if key is None else {"Authorization": f"Bearer {key}"}


def finish(
    client: httpx.Client, name: str, key: str | None = "mine", path: str = CHAT
) -> httpx.Response:
    return client.post(f"{path}/{name}/finish-thinking", headers=bearer(key))


def id_in(events: list[dict[str, Any]]) -> str:
    """Return the id of the response, from its first event."""
    first = events[0]
    name: str = (first.get("response") or first.get("message") or first)["id"]
    return name
