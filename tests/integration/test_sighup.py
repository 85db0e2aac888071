"""SIGHUP to a server that is at work."""

import os
import signal

import openai
import pytest

from tests.support.chat import messages
from tests.support.servers import Server

pytestmark = pytest.mark.integration


def test_a_hangup_of_server_or_engine_tears_no_stream(
    server: Server, client: openai.OpenAI
) -> None:
    parts = []
    with client.chat.completions.create(
        model="demo-base",
        messages=messages(),
        max_tokens=400,
        stream=True,
        extra_body={"ignore_eos": True, "vllm_xargs": {"exit_policy": "none"}},
    ) as stream:
        for chunk in stream:
            parts.append(chunk.choices[0])
            if len(parts) == 3:
                os.kill(server.process.pid, signal.SIGHUP)
                os.kill(server.engine(), signal.SIGHUP)
    assert parts[-1].finish_reason == "length"
    assert "SIGHUP: reopening API keys, request log and state file." in server.said()
    assert client.chat.completions.create(
        model="demo-base", messages=messages(1), max_tokens=20
    ).choices
