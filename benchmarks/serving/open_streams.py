"""Memory of a server's API process with many streams open at once."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp

from benchmarks.shared.processes import rss
from tests.support.servers import Server
from training.demo.world import Problem

__all__ = ["hold_open"]

PAUSE_SECONDS = 0.2
_idle: dict[int, int] = {}  # resident bytes of a server's process before its first streams


def hold_open(
    server: Server, problems: Sequence[Problem], extra: Mapping[str, Any], *, tokens_each: int
) -> dict[str, float]:
    """Open a stream for each problem, read them until each has had `tokens_each` tokens on average,
    and then disconnect.

    The result is compared with the memory before the server's first streams, so that memory kept
    from earlier streams counts, too.
    """
    return asyncio.run(_hold_open(server, problems, extra, tokens_each))


async def _hold_open(
    server: Server, problems: Sequence[Problem], extra: Mapping[str, Any], tokens_each: int
) -> dict[str, float]:
    idle = _idle.setdefault(server.process.pid, rss(server.process.pid))
    before = server.metrics()[_GENERATED]
    goal = before + tokens_each * len(problems)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(server.url, connector=connector) as session:
        tasks = [asyncio.create_task(_read(session, each.prompt, extra)) for each in problems]
        metrics = server.metrics()
        while metrics[_GENERATED] < goal:
            await asyncio.sleep(PAUSE_SECONDS)
            metrics = await asyncio.to_thread(server.metrics)
        size = rss(server.process.pid)
        running = metrics["vllm:num_requests_running"] + metrics["vllm:num_requests_waiting"]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return {
        "MiB per 1000 streams": (size - idle) / 2**20 / len(problems) * 1000,
        "MiB idle": idle / 2**20,
        "engine requests": running,
        "tokens each": (metrics[_GENERATED] - before) / len(problems),
    }


_GENERATED = "vllm:generation_tokens_total"


async def _read(session: aiohttp.ClientSession, prompt: str, extra: Mapping[str, Any]) -> None:
    body = {
        "model": "demo-base",
        "messages": [{"role": "user", "content": prompt}],
        "stream": True,
        "max_tokens": 900,
        "temperature": 0.6,
        **extra,
    }
    async with session.post("/v1/chat/completions", json=body) as response:
        response.raise_for_status()
        with contextlib.suppress(aiohttp.ClientError):
            async for _ in response.content.iter_any():
                pass
