"""Readers that stall (F3): they cost little, get all that is theirs, and others go on."""

import asyncio
import concurrent.futures
import contextlib
import json
import re
import socket
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from vllm.inputs.engine import tokens_input
from vllm.sampling_params import RequestOutputKind, SamplingParams

from service.records.sequence import RequestContext, current_request
from service.streams.inbox import BACKLOG
from tests.support.chat import IDLE_SECONDS, messages
from tests.support.engines import PROMPTS, Machine, Ours
from tests.support.finishing import NEVER_ENDS
from tests.support.servers import Server, check_accounts

pytestmark = [pytest.mark.integration, pytest.mark.slow]

STALLED, MIB = 8, 1024 * 1024
LENGTH = 400
NEVER_ENDS_HERE = {int(token): bias for token, bias in NEVER_ENDS.items()}


async def read_late(machine: Machine, ours: Ours, policy: str, xargs: dict[str, Any]) -> list[int]:
    """The ids of a stream whose client reads its beginning, and the rest when all is generated."""
    current_request.set(RequestContext())
    params = SamplingParams(
        temperature=0.0,
        max_tokens=LENGTH,
        ignore_eos=policy == "none",
        output_kind=RequestOutputKind.DELTA,
        extra_args={"exit_policy": policy} | xargs,
        logit_bias=NEVER_ENDS_HERE,
    )
    ids: list[int] = []
    async with contextlib.aclosing(
        ours.engine.generate(tokens_input(PROMPTS[0]), params, "stalled")
    ) as outputs:
        async for output in outputs:
            ids += output.outputs[0].token_ids
            if len(ids) < 20:
                await all_is_generated(machine)
    return ids


async def all_is_generated(machine: Machine) -> None:
    while machine.inner.output_processor.has_unfinished_requests():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("policy", ["none", "budget"])
def test_f3_what_a_stalled_reader_has_to_come_waits_merged(machine: Machine, policy: str) -> None:
    ours = machine.ours()
    xargs = {} if policy == "none" else {"exit_budget_tokens": LENGTH // 2}
    options: dict[str, Any] = {"logit_bias": NEVER_ENDS_HERE, "stop_token_ids": []}
    options |= {"max_tokens": LENGTH, "ignore_eos": policy == "none"}
    ((alone,), _) = machine.run(ours.ask(0, policy, xargs=xargs, **options))
    before = len(ours.border.calls)
    assert machine.run(read_late(machine, ours, policy, xargs)) == alone
    assert len(alone) > LENGTH // 2
    main = ours.border.calls[before]
    assert main.outputs <= BACKLOG + 10 < main.tokens, "it was taken from the engine piece by piece"


def stalled(server: Server) -> socket.socket:
    """A client that asks for a long stream, and reads its first bytes alone."""
    body: dict[str, Any] = {
        "model": "demo-base",
        "messages": messages(),
        "stream": True,
        "max_tokens": 1900,
    }
    body |= {"logit_bias": NEVER_ENDS, "temperature": 1.0, "return_token_ids": True}
    content = json.dumps(body).encode()
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(120)
    connection.connect(("127.0.0.1", int(server.url.rpartition(":")[2])))
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n"
    connection.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + content)
    assert b"200 OK" in connection.recv(100)
    return connection


def resident(server: Server) -> int:
    """Bytes of memory of the server's own process."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found
    return int(found[1]) * 1024


def generating(server: Server) -> float:
    return server.metrics()["vllm:num_requests_running"]


def paced(server: Server, seed: int) -> float:
    """Seconds between two tokens of a stream that is read."""
    body: dict[str, Any] = {"model": "demo-base", "messages": messages(), "stream": True}
    body |= {"max_tokens": 200}
    body |= {"logit_bias": NEVER_ENDS, "temperature": 1.0, "seed": seed}
    started, events = time.monotonic(), 0
    url = f"{server.url}/v1/chat/completions"
    with httpx.stream("POST", url, json=body, timeout=120) as response:
        for line in response.iter_lines():
            events += line.startswith("data: {")
    assert events > 150
    return (time.monotonic() - started) / events


def test_f3_stalled_readers_cost_a_mebibyte_each_and_others_go_on(server: Server) -> None:
    paced(server, 0)
    with contextlib.ExitStack() as stack, concurrent.futures.ThreadPoolExecutor() as pool:
        before = resident(server)
        clients = list(pool.map(lambda _: stack.enter_context(stalled(server)), range(STALLED)))
        while generating(server):
            time.sleep(0.2)
        assert resident(server) - before <= STALLED * MIB
        paced(server, 1)  # all of them still wait to be read
        rest = pool.map(whole, clients[: STALLED // 2])
        assert all(text.count(b'"finish_reason":"length"') == 1 for text in rest)
    server.wait_idle(IDLE_SECONDS)
    check_accounts(server.metrics())


def whole(connection: socket.socket) -> bytes:
    """All that was to come."""
    text = b""
    while not text.endswith(b"0\r\n\r\n"):
        part = connection.recv(65536)
        assert part, "the stream broke off"
        text += part
    assert b"data: [DONE]" in text
    return text
