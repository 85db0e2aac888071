"""What is not known of a model's thinking is said in every response, and never acted on."""

from dataclasses import replace
from typing import Any

import pytest
from vllm.sampling_params import SamplingParams

from service.engine.policy_resolver import PolicyResolver
from service.engine.request import EngineRequest, ServedModel
from service.http.responses import headers_of
from service.params import EFFORT, BadParameter, Requested, ThinkingRequest
from service.params.limits import ProbeLimits
from service.records.reasons import Abstained
from service.records.sequence import RequestContext, SequenceRecord
from stepgrpo_core import ExitSettings

NOT_KNOWN = Abstained.NO_THINKING_TOKENS


def decide(policy: str, asked: ThinkingRequest, **xargs: Any) -> Any:
    nothing: Any = None
    decider = PolicyResolver(
        ServedModel(nothing, nothing, None, nothing),
        ExitSettings(policy=policy),
        ProbeLimits(),
        EFFORT,
        max_model_len=1000,
        prefix_caching=True,
        grammars_wait=False,
        is_off=lambda request, policy: False,
    )
    params = SamplingParams(max_tokens=100, extra_args=xargs or None)
    return decider.effective(
        EngineRequest("r", {"prompt_token_ids": [1]}, params, {}), asked, tools=False
    )


@pytest.mark.parametrize("policy", ["none", "confidence", "budget+repetition"])
def test_whatever_is_asked_of_an_unknown_family_abstains(policy: str) -> None:
    for xargs in ({}, {"exit_policy": "confidence"}):
        found = decide(policy, ThinkingRequest(), **xargs)
        assert (found.settings.policy, found.abstained) == ("none", NOT_KNOWN)
    effort = decide(policy, ThinkingRequest(effort=Requested("low", "reasoning_effort")))
    assert effort.abstained is NOT_KNOWN


def test_a_bound_on_an_unknown_family_is_refused_by_name() -> None:
    budget = ThinkingRequest(budget=Requested(10, "thinking_token_budget"))
    with pytest.raises(BadParameter, match=r"thinking_token_budget=10.*is not known"):
        decide("none", budget)
    with pytest.raises(BadParameter, match=r"exit_max_steps=2 .*is not known"):
        decide("confidence", ThinkingRequest(), exit_max_steps=2)


def test_every_response_of_an_unknown_family_has_a_block_that_says_so() -> None:
    record = SequenceRecord(0, "m", "none", 3, abstained=NOT_KNOWN, status="completed")
    context = RequestContext(sequences=[record])
    assert context.as_block() == {
        "policy": "none",
        "settings": {},
        "exit_reason": None,
        "steps": None,
        "reasoning_tokens": None,
        "confidence": None,
        "saved": None,
        "probes": 0,
        "probe_tokens": 0,
        "cut_at": None,
        "injected_tokens": 0,
        "discarded_tokens": 0,
        "abstained": "no_thinking_tokens",
    }
    assert headers_of(context) == []  # 0 reasoning tokens would be a claim
    several = RequestContext(sequences=[record, replace(record, index=1)])
    block = several.as_block()
    assert block is not None
    assert [each["abstained"] for each in block["choices"]] == [str(NOT_KNOWN)] * 2


def test_a_sequence_that_has_not_ended_has_no_block_yet() -> None:
    context = RequestContext(sequences=[SequenceRecord(0, "m", "none", 3, abstained=NOT_KNOWN)])
    assert context.as_block() is None
