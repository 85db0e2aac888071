"""vLLM's metrics per request count requests to the engine, of which one of a user may be several.

docs/operations.md says how many: dashboards and autoscalers that know only vLLM's metrics go by it.
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
def test_a_request_of_a_user_is_so_many_of_the_engine(
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
    assert ours == 1
    # Of an exit the main stream is aborted, which ends no request, and its answer is another one;
    # so are the probes that were under way then.
    assert 1 + exited <= ended == latencies <= 1 + probes
    assert ended + exited <= first <= 1 + probes + exited
    if not exited:
        assert ended == first == 1 + probes
    assert tokens < generated if exited else tokens == generated
