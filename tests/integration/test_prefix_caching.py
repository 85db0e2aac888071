"""What a trial need not compute again."""

import httpx
import pytest

from tests.support.servers import Server, total
from training.demo.world import sample_problems

pytestmark = [pytest.mark.integration, pytest.mark.slow]

HITS = "vllm:prefix_cache_hits_total"
BLOCK = 32


def test_a_trial_shares_all_whole_blocks_of_its_request(server: Server) -> None:
    (problem,) = sample_problems(31, "test", 1, "hard")
    body = {
        "model": "demo-base",
        "messages": [{"role": "user", "content": problem.prompt}],
        "temperature": 0,
        "seed": 0,
        "max_tokens": 300,
        # The trial is declined. Before it there are the prompt and more.
        "vllm_xargs": {"exit_policy": "confidence", "exit_threshold": 1, "exit_max_probes": 1},
    }
    before = server.metrics()
    response = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60).json()
    after = server.metrics()
    assert total(after, "probe_tokens") > total(before, "probe_tokens")
    # The request itself found nothing: its problem is its own.
    shared = after[HITS] - before[HITS]
    assert shared % BLOCK == 0
    assert shared >= BLOCK * (response["usage"]["prompt_tokens"] // BLOCK)
    assert shared >= BLOCK
