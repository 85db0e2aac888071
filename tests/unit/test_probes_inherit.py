"""What probes and answers take over from their request."""

from vllm.sampling_params import SamplingParams

from service.engine.request import EngineRequest
from service.streams.engine_streams import extended_prompt, probe_prompt

PROMPT = {
    "type": "token",
    "prompt": "a",
    "prompt_token_ids": [1, 2],
    "cache_salt": "tenant",
    "arrival_time": 5.0,
}


def request(**options: object) -> EngineRequest:
    return EngineRequest("r", PROMPT, SamplingParams(), options)


def test_probes_are_one_step_later_where_priorities_count() -> None:
    assert request(priority=3).probe_options(priorities=True) == {"priority": 4}
    assert request(priority=-3).probe_options(priorities=True) == {"priority": -2}
    assert request().probe_options(priorities=True) == {"priority": 1}
    last = 2**63 - 1
    assert request(priority=last).probe_options(priorities=True) == {"priority": last}


def test_where_they_do_not_count_nothing_changes() -> None:
    assert request(priority=0).probe_options(priorities=False) == {"priority": 0}
    assert request().probe_options(priorities=False) == {}


def test_probes_inherit_adapter_and_rank_and_no_more() -> None:
    """A trace has spans of their own for them, whose headers `Timeline.ask` gives."""
    made = request(lora_request="adapter", data_parallel_rank=1, trace_headers={}, session_id="s")
    expected = {"lora_request": "adapter", "data_parallel_rank": 1}
    assert made.probe_options(priorities=False) == expected


def test_the_cache_salt_stays_and_the_text_does_not() -> None:
    """An answer came with its request; a probe comes now."""
    assert extended_prompt(PROMPT, [3]) == {
        "type": "token",
        "prompt_token_ids": [1, 2, 3],
        "cache_salt": "tenant",
        "arrival_time": 5.0,
    }
    assert probe_prompt(PROMPT, [7]) == {
        "type": "token",
        "prompt_token_ids": [7],
        "cache_salt": "tenant",
    }
