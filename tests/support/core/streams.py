"""Hypothesis strategies for streams, settings, limits and answers of any kind."""

import re
from collections.abc import Callable
from random import Random

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from stepgrpo_core import POLICIES, ExitSettings, InvalidSetting, StartProbe, build_policy
from stepgrpo_core.control.states import REASONS, Signal, State
from stepgrpo_core.policies import Answer, Distribution, Induce, InducedAnswer, NextToken, Reply
from tests.support.core.scripted import END, Script

WORDS = [
    *("a", " b", "\n", "\n\n", ".", " x.", "? ", '."', "。", "é", "", "1", ",", "ing"),
    *("</think", "é\u0301", "等", "等等", "\ud83e", "\udd14", "\u200d", "\x00"),
    *("Wait", " Wait", "W", "ait", "Alter", "natively", " Wait\n", "So it is done again."),
]
BY_POLICY = REASONS[State.THINKING, Signal.EXIT]
MATCHER = re.compile("done|1")  # trusted here; servers pass a linear-time engine
SURE = InducedAnswer((7, END), (0.0, -0.001), ended=True, text="{5}</think>")
ANSWERS: dict[type, list[Answer | None]] = {
    Induce: [
        None,
        SURE,
        SURE,
        InducedAnswer((7, 8), (0.0, -3.0), ended=False, text="{6}"),
        InducedAnswer((), (), False),
    ],
    NextToken: [None, Distribution((-0.1, -0.5), -0.5), Distribution((-0.1,), None)],
    type(None): [None, Reply("100", (("yes", -0.1),)), Reply("0", (("no", -0.1),)), Reply("?")],
}

short = st.lists(st.sampled_from(WORDS), max_size=25)
loops = st.builds(lambda words, times: words * times, short, st.sampled_from([2, 4, 8]))
long = st.builds(
    lambda seed, size, words: Random(seed).choices(words, k=size),
    st.integers(0, 999),
    st.integers(20, 160),
    st.sampled_from([WORDS, ["a", " b", ".", "\n\n", " Wait", ""], ["Wait", " Wait", ","]]),
)
scripts = st.builds(
    lambda prefix, body, suffix, cause: Script([*prefix, *body, *suffix], cause=cause),
    st.sampled_from([["<think>"]] * 5 + [["\n", "<think>"], [], ["x"]]),
    short | loops | long | long,
    st.sampled_from(
        [
            *([""], ["</think>", ""], ["</think>", "c", "</think>", "d"]),
            *(
                ["<tool_call>", "c", " Wait", "d", ""],
                ["</think>", "<tool_call>", " Wait", "c", ""],
            ),
        ]
    ),
    st.sampled_from(["eos", "length", "stop"]),
)
policies = st.lists(
    st.sampled_from(sorted(POLICIES.keys() - {"none"})), min_size=1, max_size=3, unique=True
).map("+".join)
exit_settings = st.builds(
    ExitSettings,
    policy=st.just("none") | policies,
    threshold=st.sampled_from([0.0, 0.5, 0.95, 1.0]),
    max_probes=st.sampled_from([0, 1, 2, 4, 10, 10]),
    min_tokens=st.sampled_from([0, 0, 1, 5]),
    min_interval=st.sampled_from([0, 0, 1, 5]),
    probe_share=st.sampled_from([None, None, 0.0, 0.5, 1.0]),
    probe_backoff=st.sampled_from([1.0, 2.0]),
    probe_max_tokens=st.just(2),
    shadow=st.sampled_from([False, False, True]),
    answer_reserve=st.integers(0, 4),
    close_on_eos=st.booleans(),
    consistency=st.sampled_from(["max", "high", "mid"]),
    entropy_alpha=st.just(1.0),
    entropy_probes=st.sampled_from([None, 4, 12]),
    budget_tokens=st.none() | st.integers(0, 60),
    max_steps=st.none() | st.integers(1, 4),
    budget_leaves_answer=st.booleans(),
    repetition_chunks=st.integers(2, 3),
)
limits = st.none() | st.integers(1, 20) | st.integers(20, 200)
calm = settings(deadline=None, suppress_health_check=[HealthCheck.filter_too_much])


def answers_by(seed: int) -> Callable[[StartProbe], Answer | None]:
    """Return answers that depend on question and position alone."""

    def answer(command: StartProbe) -> Answer | None:
        kind = type(command.spec)
        choices = ANSWERS.get(kind, ANSWERS[type(None)])
        return choices[hash((seed, command.position, kind.__name__ == "Induce")) % len(choices)]

    return answer


def can_be_built(asked: ExitSettings) -> bool:
    try:
        build_policy(asked, MATCHER)
    except InvalidSetting:
        return False
    return True
