"""What a real server shows at ``/metrics`` is what the catalog says, however clients behave."""

import itertools

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.records.metric_table import METRICS
from stepgrpo_core import POLICIES
from tests.support.chat import EXIT, messages
from tests.support.servers import Server

pytestmark = pytest.mark.integration


def shown(server: Server) -> dict[str, set[tuple[str, ...]]]:
    """Label names of our metrics, and the values of label `policy`."""
    text = httpx.get(f"{server.url}/metrics", timeout=30).text
    found: dict[str, set[tuple[str, ...]]] = {}
    for family in text_string_to_metric_families(text):
        if family.name.startswith("stepgrpo_"):
            name = family.name + "_total" * (family.type == "counter")
            labels = {tuple(sorted(set(each.labels) - {"le"})) for each in family.samples}
            found[name] = labels
    return found


def policies(server: Server) -> set[str]:
    text = httpx.get(f"{server.url}/metrics", timeout=30).text
    return {
        sample.labels["policy"]
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "policy" in sample.labels
    }


def test_every_metric_is_in_the_catalog_with_its_labels(server: Server) -> None:
    found = shown(server)
    assert len(found) > 20
    for name, labels in found.items():
        assert name in METRICS
        assert labels <= {tuple(sorted(METRICS[name].labels))}, name


def test_clients_cannot_make_series_by_joining_policies(server: Server) -> None:
    with httpx.Client(base_url=server.url, timeout=120) as client:
        for joined in itertools.permutations(("confidence", "budget", "repetition")):
            body = {
                "model": "demo-base",
                "messages": messages(0),
                "max_tokens": 64,
                "vllm_xargs": EXIT | {"exit_policy": "+".join(joined), "exit_max_steps": 9},
            }
            answer = client.post("/v1/chat/completions", json=body)
            answer.raise_for_status()
            assert answer.json()["stepgrpo"]["policy"] == "+".join(joined)
    found = policies(server)
    assert "combined" in found
    assert not {each for each in found - {"combined", "holdout"} if each not in POLICIES}
