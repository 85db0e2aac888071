"""What the server refuses, and how it says so."""

from typing import Any

import httpx
import openai
import pytest

from tests.support.chat import chat
from tests.support.servers import Server

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("body", "parameter", "remedy"),
    [
        ({"vllm_xargs": {"exit_policy": "nonne"}}, "vllm_xargs.exit_policy", "did you mean 'none'"),
        ({"vllm_xargs": {"exit_threshold": 1.5}}, "vllm_xargs.exit_threshold", "0 to 1"),
        ({"vllm_xargs": {"exit_max_probes": -1}}, "vllm_xargs.exit_max_probes", "0 or more"),
        ({"vllm_xargs": {"exit_treshold": 0.9}}, "vllm_xargs.exit_treshold", "exit_threshold"),
        (
            {"vllm_xargs": {"exit_policy": "pattern"}},
            "vllm_xargs.exit_policy",
            "regular expression",
        ),
        (
            {"vllm_xargs": {"exit_policy": "pattern", "exit_pattern": "(?=a)"}},
            "vllm_xargs.exit_pattern",
            "lookaround",
        ),
        ({"exit_policy": "none"}, "exit_policy", "vllm_xargs"),
        ({"thinking_token_budget": -5}, "thinking_token_budget", "0 or more"),
    ],
)
def test_bad_parameters_are_refused_by_name(
    client: openai.OpenAI, body: Any, parameter: str, remedy: str, stream: bool
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        chat(client, xargs=None, extra_body=body, stream=stream)
    assert caught.value.status_code == 400
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["param"] == parameter
    assert remedy in caught.value.body["message"]


def test_malformed_bodies_are_the_clients_fault(server: Server) -> None:
    headers = {"content-type": "application/json"}
    for content in (b"exit{", b"[1]", b'{"exit":', b"\xff\xfeexit"):
        url = f"{server.url}/v1/chat/completions"
        answer = httpx.post(url, content=content, headers=headers)
        assert 400 <= answer.status_code < 500, answer.text
        assert "error" in answer.json()
