"""A local judge that answers, fails or forwards requests."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

KEY = "the-judges-key"


class LocalJudge:
    """A judge that serves at `url`; `behave` decides about every request."""

    def __init__(self) -> None:
        self.behave: Callable[[dict[str, Any]], tuple[int, bytes] | None] = yes
        """Returns status and body for a request body; None closes the connection unanswered."""
        self.models = ["judge"]
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.arrived = threading.Event()
        """Set when a request has arrived."""
        self.released = threading.Event()
        """Set at the end, to release handlers that hang."""
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
                with contextlib.suppress(OSError):  # the client has disconnected
                    self.send_response(status)
                    self.send_header("content-type", "application/json")
                    self.send_header("content-length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                """Log nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    @contextlib.contextmanager
    def serving(self) -> Iterator["LocalJudge"]:
        """Serve while the context is active."""
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
