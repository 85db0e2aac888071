"""The scripted requests of the soak: every endpoint, every policy, and clients that disconnect."""

import random
from dataclasses import dataclass
from typing import Any

from benchmarks.faults.churn import PROBLEMS, visit
from benchmarks.shared.raw_http import Leave, Reply

__all__ = ["DEFAULT", "Asked", "asked", "verdict"]

DEFAULT = "confidence+margin"
"""The server's default policy; only requests that name no policy take part in the holdout."""
USAGE = {"include_usage": True}
POLICIES: tuple[dict[str, Any] | None, ...] = (
    None,
    {"exit_policy": "confidence"},
    None,
    {"exit_policy": "none"},
    {"exit_policy": "consistency"},
    {"exit_policy": "sufficiency"},
    {"exit_policy": "give_up"},  # not calibrated: never exits
    None,
    {"exit_policy": "margin"},
    {"exit_policy": "entropy", "exit_max_probes": 30},
    {"exit_policy": "budget", "exit_budget_tokens": 60},
    None,
    {"exit_policy": "pattern", "exit_pattern": "check again"},
    {"exit_policy": "repetition"},
    {"exit_policy": "verifier"},  # its judge is dead
    {"exit_policy": "confidence+repetition", "exit_threshold": 1.0},
)


@dataclass(frozen=True, slots=True)
class Asked:
    """One scripted request."""

    route: str
    body: dict[str, Any]
    sequences: int
    dealt: bool
    """True if the request takes part in the holdout."""
    leave: Leave | None = None
    stay: float | None = None

    @property
    def cut(self) -> bool:
        """Return whether the client disconnects."""
        return self.leave is not None or self.stay is not None


def asked(index: int) -> Asked:
    """Return the request of this number: three of five are chats, every tenth is cut."""
    chat = visit(index)
    xargs = POLICIES[index % len(POLICIES)]
    route = ("chat/completions", "completions", "chat/completions", "responses")[index % 4]
    streams = bool(index // 4 % 2)
    if route == "chat/completions":
        body = dict(chat.body)
        if chat.cut is None:
            body.pop("vllm_xargs")
            body |= {"vllm_xargs": xargs} if xargs else {}
            body |= {"stream": True, "stream_options": USAGE} if streams else {}
        dealt = "vllm_xargs" not in body
        return Asked(route, body, body["n"], dealt, chat.leave, chat.stay)
    body = {"model": "demo-base", "temperature": 0.6} | ({"vllm_xargs": xargs} if xargs else {})
    prompt = PROBLEMS[index % len(PROBLEMS)]
    if route == "completions":
        body |= {"prompt": prompt, "max_tokens": 200, "seed": index}
    else:
        body |= {"input": prompt, "max_output_tokens": 400}
    if streams:
        body["stream"] = True
    stay = random.Random(index).uniform(0, 1) if chat.cut else None
    return Asked(route, body, 1, xargs is None, stay=stay)


def verdict(one: Asked, reply: Reply) -> str:
    """Return the verdict on a request: `whole`, `left`, or an error."""
    last = reply.last
    ended = reply.whole or last.get("type") in ("response.completed", "response.incomplete")
    if reply.status == 200 and ended and not last.get("error"):
        return "whole"
    if last.get("error") or last.get("type") == "error":
        error = last["error"] if isinstance(last.get("error"), dict) else last
        return f"{error.get('code') or reply.status}"
    if one.cut and reply.status in (0, 200):
        return "left"
    return "broken" if reply.status in (0, 200) else f"{reply.status}"
