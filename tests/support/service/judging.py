"""A local judge that answers, fails or forwards requests."""

import json
import threading
from collections.abc import Callable
from typing import Any

import httpx

from tests.support.service.http_server import Handler, LocalServer

KEY = "the-judges-key"


class LocalJudge(LocalServer):
    """A judge that serves at `url`; `behave` decides about every request."""

    def __init__(self) -> None:
        self.behave: Callable[[dict[str, Any]], tuple[int, bytes] | None] = yes
        """Returns status and body for a request body; None closes the connection unanswered."""
        self.models = ["judge"]
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.arrived = threading.Event()
        """Set when a request has arrived."""
        judge = self

        class Judgments(Handler):
            def do_GET(self) -> None:
                models = {"data": [{"id": each} for each in judge.models]}
                self.reply(200, json.dumps(models).encode())

            def do_POST(self) -> None:
                body = json.loads(self.body())
                judge.asked.append(body)
                judge.arrived.set()
                judge.keys.append(self.headers["authorization"])
                answer = judge.behave(body)
                if answer is None:
                    self.close_connection = True
                else:
                    self.reply(*answer)

        super().__init__(Judgments)
        self.url = f"{self.address}/v1"

    def hang(self, _: dict[str, Any]) -> None:
        """Hang for longer than any client waits."""
        self.released.wait(600)


def completion(text: Any, *tops: tuple[str, float], **fields: Any) -> tuple[int, bytes]:
    """Return a chat completion of OpenAI's API with `tops` as the most likely first tokens."""
    entries = [{"token": token, "logprob": value} for token, value in tops]
    choice = {
        "message": {"role": "assistant", "content": text},
        "logprobs": {"content": [{**entries[0], "top_logprobs": entries}]} if tops else None,
    }
    usage = {"prompt_tokens": 40, "completion_tokens": 1}
    return 200, json.dumps({"choices": [choice], "usage": usage} | fields).encode()


def yes(_: dict[str, Any]) -> tuple[int, bytes]:
    """Answer yes with certainty."""
    return completion("Yes", ("Yes", -0.1), ("No", -3.0))


def forwarding(client: httpx.Client, model: str) -> Callable[[dict[str, Any]], tuple[int, bytes]]:
    """Forward to `model` on a real server."""

    def ask(body: dict[str, Any]) -> tuple[int, bytes]:
        answer = client.post("/v1/chat/completions", json=body | {"model": model})
        return answer.status_code, answer.content

    return ask
