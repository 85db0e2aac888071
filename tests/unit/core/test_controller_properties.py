"""The exit controller under any policies, any stream, any timing: what always holds."""

import itertools
import math
from bisect import bisect_left
from random import Random
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from stepgrpo_core import (
    DEFAULT_MARKERS,
    ExitReason,
    ExitSettings,
    build_policy,
    count_steps,
)
from stepgrpo_core.control.boundaries import step_starts
from tests.support.core.scripted import START, THINKING, TOOL, Played, Script, play
from tests.support.core.streams import (
    BY_POLICY,
    MATCHER,
    answers_by,
    calm,
    can_be_built,
    exit_settings,
    limits,
    scripts,
)


@calm
@given(scripts, exit_settings, limits, st.integers(0, 99), st.booleans(), st.randoms())
def test_tokens_decide_and_never_time_or_chunks(
    script: Script,
    asked: ExitSettings,
    max_tokens: int,
    seed: int,
    thinking_open: bool,
    random: Random,
) -> None:
    assume(can_be_built(asked))
    script.answers = answers_by(seed)
    common: dict[str, Any] = {
        "max_tokens": max_tokens,
        "matcher": MATCHER,
        "thinking_open": thinking_open,
    }
    runs = [
        play(script, asked, **common),
        play(script, asked, answer_now=lambda tick: False, **common),
        play(script, asked, chunk=lambda tick: 1000, **common),
        play(
            script,
            asked,
            answer_now=lambda tick: random.random() < 0.3,
            chunk=lambda tick: random.randint(1, 6),
            **common,
        ),
        play(
            script, asked, answer_now=lambda tick: tick % 5 == 0, late=lambda tick: True, **common
        ),
    ]
    for played in runs:
        check(script, asked, max_tokens, played, thinking_open=thinking_open)
    first, *others = runs
    for played in others:
        assert played.emitted == first.emitted
        assert played.outcome.reason is first.outcome.reason
        assert played.outcome.steps == first.outcome.steps
        assert played.outcome.shadow_reason is first.outcome.shadow_reason


@calm
@given(scripts, exit_settings, limits, st.booleans(), st.randoms())
def test_refused_probes_leave_a_completion_that_could_have_been(
    script: Script, asked: ExitSettings, max_tokens: int | None, thinking_open: bool, random: Random
) -> None:
    assume(can_be_built(asked))
    script.answers = answers_by(5)
    common: dict[str, Any] = {
        "max_tokens": max_tokens,
        "matcher": MATCHER,
        "thinking_open": thinking_open,
    }
    some = play(script, asked, refuses=lambda probe: random.random() < 0.5, **common)
    check(script, asked, max_tokens, some, thinking_open=thinking_open)
    all_refused = play(script, asked, refuses=lambda probe: True, **common)
    check(script, asked, max_tokens, all_refused, thinking_open=thinking_open)
    assert (all_refused.outcome.probes, all_refused.outcome.failed_probes) == (0, 0)


@calm
@given(
    scripts,
    exit_settings,
    limits,
    st.none() | st.integers(1, 40),
    st.none() | st.integers(1, 40),
    st.randoms(),
)
def test_clients_that_leave_or_want_the_answer(
    script: Script,
    asked: ExitSettings,
    max_tokens: int,
    wish_at: int | None,
    abort_at: int | None,
    random: Random,
) -> None:
    assume(can_be_built(asked))
    script.answers = answers_by(3)
    played = play(
        script,
        asked,
        answer_now=lambda tick: random.random() < 0.3,
        late=lambda tick: random.random() < 0.5,
        chunk=lambda tick: random.randint(1, 6),
        max_tokens=max_tokens,
        matcher=MATCHER,
        wish_at=wish_at,
        abort_at=abort_at,
    )
    check(script, asked, max_tokens, played, whole=abort_at is None, wished=wish_at is not None)


def check(
    script: Script,
    asked: ExitSettings,
    max_tokens: int | None,
    played: Played,
    *,
    whole: bool = True,
    wished: bool = False,
    thinking_open: bool = False,
) -> None:
    outcome, limit = played.outcome, math.inf if max_tokens is None else max_tokens
    assert isinstance(outcome.reason, ExitReason)
    assert len(played.emitted) <= limit
    assert len(played.probes) == outcome.probes
    check_caps(asked, played)
    generated = script.ids[:max_tokens]
    if played.close is None:
        assert played.emitted == generated[: len(played.emitted)]
        assert not whole or played.emitted == generated
        return
    cut, reason = played.close.position, played.close.reason
    assert outcome.reason is reason
    kept = [*generated[:cut], *THINKING.closing_ids]
    assert played.emitted[: len(kept)] == kept
    assert TOOL not in generated[:cut]
    answer = played.emitted[len(kept) :]
    assert answer == list(script.answer)[: len(answer)]
    assert not whole or len(answer) == min(len(script.answer), limit - len(kept))
    assert reason is not ExitReason.CLIENT or wished
    assert limit - len(kept) >= (asked.answer_reserve if reason in BY_POLICY else 1)
    assert not asked.shadow or reason is ExitReason.CLIENT
    assert asked.policy != "none" or reason is ExitReason.CLIENT
    begin = 0 if thinking_open else script.ids.index(START) + 1
    assert outcome.steps == count_steps("".join(script.words[begin:cut]), DEFAULT_MARKERS)
    assert outcome.reasoning_tokens == cut - begin + 1


def check_caps(asked: ExitSettings, played: Played) -> None:
    """However many boundaries there are: so many questions, so far apart, at so little cost."""
    asking = [p for p in build_policy(asked, MATCHER) if p.needs.probe]
    own = [p.needs.max_probes for p in asking]
    assert len(played.probes) <= sum(asked.max_probes if most is None else most for most in own)
    for policy in asking:
        if [p.needs.probe for p in asking].count(policy.needs.probe) > 1:
            continue  # whose question it was cannot be told
        at = [p.position for p in played.probes if p.spec == policy.needs.probe]
        for number, (before, after) in enumerate(itertools.pairwise(at)):
            interval = policy.needs.min_interval * asked.probe_backoff**number
            assert after - before >= max(interval, 1)
        if asked.probe_share is not None and at:
            question = policy.needs.probe
            assert question is not None
            cost = len(at) * question.max_tokens
            assert cost <= asked.probe_share * max(at)


@calm
@given(scripts, st.sampled_from([0.0, 0.9]), st.booleans())
def test_calibrations_count_steps_as_the_controller_does(
    script: Script, threshold: float, thinking_open: bool
) -> None:
    """Trials are put where steps start, and an exit there is after the same k."""
    starts = step_starts(
        script.ids, script.words, THINKING, markers=DEFAULT_MARKERS, thinking_open=thinking_open
    )
    asked = ExitSettings(policy="confidence", threshold=threshold, max_probes=999, min_interval=0)
    script.confidences = lambda position: 0.5
    played = play(script, asked, thinking_open=thinking_open)
    assert {each.position for each in played.probes} <= set(starts)
    if played.outcome.reason is ExitReason.CONFIDENT:
        assert played.close is not None
        assert played.outcome.steps == 1 + bisect_left(starts, played.close.position)
