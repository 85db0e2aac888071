"""Thinking that is switched off or on, misspelt parameters, and bounds of what is asked."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.params import (
    EFFORT,
    Effective,
    Template,
    ThinkingRequest,
    read_body,
    to_vllm_body,
)
from stepgrpo_core import ExitReason, ExitSettings
from tests.support.core.scripted import THINKING, Script, play
from tests.support.service.controls import CHAT, DEFAULTS, QWEN, refused, settled

# Off.

OFF = [
    {"enable_thinking": False},
    {"thinking": {"type": "disabled"}},
    {"reasoning": {"enabled": False}},
    {"reasoning_effort": "none"},
    {"reasoning": {"effort": "none"}},
    {"chat_template_kwargs": {"thinking": False}},
    {"chat_template_kwargs": {"enable_thinking": False, "thinking": None}},
    {"thinking_budget": 0},
    {"vllm_xargs": {"exit_budget_tokens": 0}},
]


@pytest.mark.parametrize("body", OFF)
@pytest.mark.parametrize("endpoint", [CHAT, "/v1/responses", "/v1/messages", "/invocations"])
def test_off_reaches_the_template_and_is_enforced(body: Any, endpoint: str) -> None:
    told, asked = to_vllm_body(
        body, read_body(body), endpoint, Template(("enable_thinking", "thinking"))
    )
    kwargs = (told or body)["chat_template_kwargs"]
    assert (kwargs["enable_thinking"], kwargs["thinking"]) == (False, False)
    assert asked.off is not None
    settings = settled(body, endpoint=endpoint).settings
    assert (settings.policy, settings.budget_tokens) == ("budget", 0)


@pytest.mark.parametrize("body", OFF)
def test_off_is_refused_or_closed_at_once_where_the_template_has_no_switch(body: Any) -> None:
    if "thinking_budget" in body or "vllm_xargs" in body:
        effective = settled(body, template=Template())
        assert effective.settings.budget_tokens == 0
        assert effective.demand is not None  # nothing else sees to it
        return
    error = refused(body, template=Template())
    assert "cannot switch thinking off" in str(error)
    assert "thinking_token_budget=0" in str(error)


def test_off_needs_no_template_where_there_is_none_or_nothing_thinks() -> None:
    body = {"reasoning_effort": "none"}
    raw = settled(body, endpoint="/v1/completions", template=Template())
    assert (raw.settings.budget_tokens, raw.demand is None) == (0, False)
    assert settled(body, template=Template(thinks=False)).demand is None


def test_off_goes_with_a_policy_that_only_counts() -> None:
    body = {"enable_thinking": False, "vllm_xargs": {"exit_policy": "none"}}
    assert settled(body).settings.policy == "none"
    assert "exit_policy='none'" in str(refused(body, endpoint="/v1/completions"))


def test_on_reaches_the_template() -> None:
    for body in ({"enable_thinking": True}, {"reasoning": {"enabled": True}}):
        told, asked = to_vllm_body(body, read_body(body), CHAT, QWEN)
        assert told is not None
        assert told["chat_template_kwargs"] == {"enable_thinking": True}
        assert asked.off is None
        assert settled(body) == Effective(DEFAULTS)


def test_a_body_that_says_it_in_vllms_own_words_is_not_touched() -> None:
    for body in (
        {"chat_template_kwargs": {"enable_thinking": False}},
        {"reasoning_effort": "low"},
        {"thinking_token_budget": 40},
        {"thinking": {"type": "adaptive"}},
    ):
        assert to_vllm_body(body, read_body(body), CHAT, QWEN)[0] is None


@pytest.mark.parametrize(
    ("endpoint", "body", "told"),
    [
        (CHAT, {"reasoning": {"effort": "low"}}, {"reasoning_effort": "low"}),
        ("/v1/responses", {"reasoning_effort": "low"}, {"reasoning": {"effort": "low"}}),
        ("/v1/messages", {"reasoning_effort": "low"}, {"output_config": {"effort": "low"}}),
        ("/v1/messages", {"reasoning_effort": "minimal"}, {}),
        ("/v1/completions", {"reasoning_effort": "low"}, {}),
        # vLLM's own budget starts at 1 024 there and would be a second hand that closes.
        (
            "/v1/messages",
            {"thinking": {"type": "enabled", "budget_tokens": 40}},
            {"thinking": {"type": "adaptive"}, "chat_template_kwargs": {"enable_thinking": True}},
        ),
    ],
)
def test_efforts_and_budgets_go_where_the_endpoint_has_them(
    endpoint: str, body: Any, told: Any
) -> None:
    after, _ = to_vllm_body(body, read_body(body), endpoint, QWEN)
    assert (after or body) == body | told


# Misspelt and misplaced.


@pytest.mark.parametrize(
    ("body", "parameter", "remedy"),
    [
        ({"exit_policy": "none"}, "exit_policy", "pass it as {'vllm_xargs': {'exit_policy'"),
        ({"exit_polcy": "none"}, "exit_polcy", "{'vllm_xargs': {'exit_policy'"),
        ({"vllm_xarg": {"exit_policy": "none"}}, "vllm_xarg", "did you mean 'vllm_xargs'"),
        ({"extra_body": {"thinking_budget": 3}}, "extra_body.thinking_budget", "top level"),
        ({"extra_body": {"vllm_xargs": {}}}, "extra_body.vllm_xargs", "top level"),
        ({"reasoning_efort": "low"}, "reasoning_efort", "did you mean 'reasoning_effort'"),
        ({"reasoningEffort": "low"}, "reasoningEffort", "did you mean 'reasoning_effort'"),
        ({"thinking_tokens_budget": 9}, "thinking_tokens_budget", "'thinking_token_budget'"),
        ({"max_thinking_tokens": 9}, "max_thinking_tokens", "{'nvext': {'max_thinking_tokens'"),
        ({"budget_tokens": 9}, "budget_tokens", "{'thinking': {'budget_tokens'"),
        ({"effort": "low"}, "effort", "{'reasoning': {'effort': ...}}"),
        ({"nvext": {"thinking_budget": 9}}, "nvext.thinking_budget", "'thinking_budget'"),
        ({"nvext": {"max_thinking_token": 9}}, "nvext.max_thinking_token", "max_thinking_tokens'"),
        ({"reasoning": {"budget_tokens": 9}}, "reasoning.budget_tokens", "{'thinking': {"),
        ({"chat_template_kwarg": {}}, "chat_template_kwarg", "'chat_template_kwargs'"),
        (
            {"chat_template_kwargs": {"enable_thinkng": False}},
            "chat_template_kwargs.enable_thinkng",
            "enable_thinking",
        ),
        ({"reasoning": "high"}, "reasoning", "use an object, as in {'reasoning': {'enabled'"),
        ({"thinking": True}, "thinking", "use an object"),
        ({"vllm_xargs": ["exit"]}, "vllm_xargs", "{'vllm_xargs': {'exit_policy'"),
    ],
)
def test_near_misses_are_told_what_was_meant_and_where(
    body: Any, parameter: str, remedy: str
) -> None:
    error = refused({"model": "m", "messages": [], **body})
    assert error.parameter == parameter
    assert remedy in str(error)


@pytest.mark.parametrize(
    "body",
    [
        dict.fromkeys(
            (
                *("include_reasoning", "reasoning_format", "separate_reasoning", "thinking_forced"),
                *("stream_reasoning", "return_reasoning", "reasoning_content", "reasoning_split"),
            ),
            True,
        ),
        {"reasoning": {"summary": "auto", "exclude": True, "generate_summary": None}},
        {"thinking": {"type": "adaptive", "display": "omitted"}},
        {"chat_template_kwargs": {"clear_thinking": False, "documents": [], "effort": 3}},
        {"custom_params": {"temperature": 1}, "nvext": {"annotations": []}},
        {"vllm_xargs": {"session_id": "x", "threshold": 1}, "nvext": None},
        {"messages": [{"role": "user", "content": "exit_policy", "thinking_budget": 1}]},
        {"metadata": {"exit_policy": "none"}},
    ],
)
def test_what_others_own_is_left_alone(body: Any) -> None:
    assert read_body(body) == ThinkingRequest()


# Bounds.


@given(
    limit=st.integers(12, 200),
    asked=st.one_of(
        st.builds(lambda tokens: {"thinking_budget": tokens}, st.integers(0, 300)),
        st.builds(lambda effort: {"reasoning_effort": effort}, st.sampled_from(list(EFFORT))),
    ),
    endless=st.integers(1, 7),
)
def test_the_thinking_stays_in_bounds_and_an_answer_fits(
    limit: int, asked: dict[str, Any], endless: int
) -> None:
    effective = settled(asked, ExitSettings(), limit=limit)
    settings = effective.settings
    if settings.policy != "budget":  # effort max: no bound
        return
    budget = settings.budget_tokens
    assert budget is None or 0 <= budget <= asked.get("thinking_budget", limit)
    words = ["<think>", *(["x"] * endless + ["\n"]) * limit]
    played = play(Script(words[: limit + 1]), settings, max_tokens=limit)
    assert played.outcome.reason is ExitReason.BUDGET
    assert played.close is not None
    if budget is not None:
        assert played.close.position - 1 <= max(budget + budget // 10, 1)
    left = limit - played.close.position - len(THINKING.closing_ids)
    assert left >= settings.answer_reserve >= min(64, (limit - 4) // 2)
