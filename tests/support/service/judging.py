"""A judge on this machine that does what tests tell it: answers, fails, or passes questions on."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

KEY = "the-judges-key"


class LocalJudge:
    """Serves at `url`; `behave` decides on every question."""

    def __init__(self) -> None:
        self.behave: Callable[[dict[str, Any]], tuple[int, bytes] | None] = yes
        """Status and body for a question's body; None closes the connection without an answer."""
        self.models = ["judge"]
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.arrived = threading.Event()
        """A question has."""
        self.released = threading.Event()
        """Set at the end, so that what hangs ends."""
        judge = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                models = {"data": [{"id": each} for each in judge.models]}
                self.reply((200, json.dumps(models).encode()))

            def do_POST(self) -> None:
                length = int(self.headers["content-length"])
                body = json.loads(self.rfile.read(length))
                judge.asked.append(body)
                judge.arrived.set()
                judge.keys.append(self.headers["authorization"])
                self.reply(judge.behave(body))

            def reply(self, answer: tuple[int, bytes] | None) -> None:
                if answer is None:
                    self.close_connection = True
                    return
                status, content = answer
                with contextlib.suppress(OSError):  # who asked has left
                    self.send_response(status)
                    self.send_header("content-type", "application/json")
                    self.send_header("content-length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    @contextlib.contextmanager
    def serving(self) -> Iterator["LocalJudge"]:
        """Within it, it answers."""
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield self
        finally:
            self.released.set()
            self._server.shutdown()
            thread.join()
            self._server.server_close()

    def hang(self, _: dict[str, Any]) -> None:
        """Say nothing for as long as anybody could wait."""
        self.released.wait(600)


def completion(text: Any, *tops: tuple[str, float], **fields: Any) -> tuple[int, bytes]:
    """A chat completion as OpenAI's API has it, with `tops` as the likeliest first tokens."""
    entries = [{"token": token, "logprob": value} for token, value in tops]
    choice = {
        "message": {"role": "assistant", "content": text},
        "logprobs": {"content": [{**entries[0], "top_logprobs": entries}]} if tops else None,
    }
    usage = {"prompt_tokens": 40, "completion_tokens": 1}
    return 200, json.dumps({"choices": [choice], "usage": usage} | fields).encode()


def yes(_: dict[str, Any]) -> tuple[int, bytes]:
    """Certainly."""
    return completion("Yes", ("Yes", -0.1), ("No", -3.0))


def forwarding(client: httpx.Client, model: str) -> Callable[[dict[str, Any]], tuple[int, bytes]]:
    """Ask `model` on a real server."""

    def ask(body: dict[str, Any]) -> tuple[int, bytes]:
        answer = client.post("/v1/chat/completions", json=body | {"model": model})
        return answer.status_code, answer.content

    return ask
