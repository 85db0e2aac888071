"""vLLM's metrics per request count one request for each of a user's, and no probes.

docs/operations.md says what they measure: dashboards and autoscalers may know only vLLM's metrics.
"""

import openai
import pytest

from tests.support.chat import chat
from tests.support.servers import Server

pytestmark = pytest.mark.integration

NAMES = (
    "vllm:request_success_total",
    "vllm:time_to_first_token_seconds_count",
    "vllm:request_inference_time_seconds_count",
    "vllm:request_generation_tokens_sum",
    "vllm:generation_tokens_total",
    "stepgrpo_requests_total",
)


@pytest.mark.parametrize("index", range(4))
@pytest.mark.parametrize("policy", ["confidence", "none"])
def test_a_request_of_a_user_is_one_of_the_engines_metrics(
    server: Server, client: openai.OpenAI, policy: str, index: int
) -> None:
    server.wait_idle(60)
    before = server.metrics()
    block = chat(client, index, {"exit_policy": policy}).model_extra["stepgrpo"]
    server.wait_idle(60)
    after = server.metrics()
    ended, first, latencies, tokens, generated, ours = (
        after[name] - before.get(name, 0)
        for name in NAMES  # some are not there at first
    )
    exited, probes = block["exit_reason"] == "confident", block["probes"]
    # Of an exit the main stream is aborted, which ends no request; its answer is one.
    assert ours == ended == latencies == 1
    # First tokens have no ids, so probes are among them; not those that were under way at an exit.
    assert 1 + exited <= first <= 1 + probes + exited
    if exited:
        assert 0 < tokens < generated
    else:
        assert first == 1 + probes
        assert tokens == generated - block["probe_tokens"]
