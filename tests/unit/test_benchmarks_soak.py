"""The soak's script, how it judges responses, and its report."""

from collections import Counter
from typing import Any

import pytest

from benchmarks.faults.soak import plan
from benchmarks.faults.soak_report import slope
from benchmarks.faults.soak_traffic import DEFAULT, POLICIES, Asked, asked, verdict
from benchmarks.shared.raw_http import Reply
from stepgrpo_core import POLICIES as ALL

ASKED = Asked("chat/completions", {}, 1, dealt=True)
LEFT = Asked("chat/completions", {}, 1, dealt=True, stay=0.1)


def test_the_script_has_every_policy_and_endpoint_and_a_tenth_leaves() -> None:
    visits = [asked(index) for index in range(1000)]
    assert sum(one.cut for one in visits) == 100
    assert {one.route for one in visits} == {"chat/completions", "completions", "responses"}
    for route in ("chat/completions", "completions", "responses"):
        streams = [one.body.get("stream", False) for one in visits if one.route == route]
        assert 0.3 < sum(streams) / len(streams) < 0.7
    named = {xargs["exit_policy"] for xargs in POLICIES if xargs}
    assert set(ALL) <= {part for name in named for part in name.split("+")}
    assert DEFAULT not in named  # so that its metrics are the holdout's
    assert 0.2 < sum(one.dealt for one in visits) / len(visits) < 0.4
    assert [one.body for one in visits] == [asked(index).body for index in range(1000)]


@pytest.mark.parametrize(
    ("one", "reply", "word"),
    [
        (ASKED, Reply(200, whole=True, last={"choices": []}), "whole"),
        (ASKED, Reply(200, last={"type": "response.completed"}), "whole"),
        (ASKED, Reply(200, last={"choices": []}), "broken"),
        (LEFT, Reply(200, last={"choices": []}), "left"),
        (LEFT, Reply(0), "left"),
        (ASKED, Reply(0), "broken"),
        (ASKED, Reply(200, last={"error": {"code": 503}}), "503"),
        (ASKED, Reply(200, last={"type": "error", "code": "500"}), "500"),
        (LEFT, Reply(500, whole=True, last={"error": {"code": 500}}), "500"),
        (ASKED, Reply(400, whole=True), "400"),
    ],
)
def test_every_response_has_its_word(one: Asked, reply: Reply, word: str) -> None:
    assert verdict(one, reply) == word


def figures(growth: int) -> dict[str, Any]:
    """Of one life whose API process grows by so many bytes a request."""
    life = {
        "seconds": 60.0,
        "ending": "drain",
        "requests": 600,
        "cut": 60,
        "tokens": 9000,
        "verdicts": {"whole": 540, "left": 60},
        "ending_verdicts": {"503": 4},
        "samples": [(n, (n * growth) + 10**9 + n % 3, 10**9) for n in range(0, 600, 10)],
        "before": {},
        "after": {"tasks": 10, "descriptors": 33},
        "waited": 1,
        "sums": (10, 11, 12),
        "exit_status": 0,
    }
    facts = {"commit": "abc", "machine": "m", "date": "d", "vllm": "v"}
    return facts | {"seconds": 90, "at_once": 12, "lives": [life]}


def test_a_leak_shows_in_the_slope() -> None:
    each, low, high = slope(figures(2048))["API process"]
    assert low <= 2000 <= high
    assert each == pytest.approx(2000, rel=0.01)
    each, low, high = slope(figures(0))["API process"]
    assert low <= 0 <= high < 1


@pytest.mark.parametrize("minutes", [0.5, 5, 20])
def test_plans_take_their_time_and_end_in_every_way(minutes: float) -> None:
    lives = plan(minutes)
    assert sum(seconds for seconds, _ in lives) == pytest.approx(60 * minutes)
    ends = Counter(ending for _, ending in lives)
    assert ends.keys() >= {"engine", "server"}
    assert ("drain" in ends) == (minutes > 2)
