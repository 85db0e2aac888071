"""Exit policies by themselves: the registry, their settings, and what each decides."""

import math
import re
from collections.abc import Sequence
from typing import Any

import pytest

from stepgrpo_core import POLICIES, ExitSettings, InvalidSetting, build_policy
from stepgrpo_core.policies import (
    Answer,
    Boundary,
    BoundaryKind,
    Distribution,
    ExitPolicy,
    Induce,
    InducedAnswer,
    Judge,
    NextToken,
    Reply,
)
from stepgrpo_core.policies.entropy import entropy_of_head
from stepgrpo_core.policies.verifier import probability_of_yes

BOUNDARY = Boundary(position=5, steps=1, reasoning_tokens=4)
SURE = InducedAnswer((1, 2, 3), (-9.0, -0.01, -0.02), ended=True)
MATCHER = re.compile(r"^Done\.$")


def policy(name: str, **settings: Any) -> ExitPolicy:
    (built,) = build_policy(ExitSettings(policy=name, **settings), MATCHER)
    return built


def reasons(asked: ExitPolicy, answers: Sequence[Answer]) -> list[str | None]:
    return [asked.decide(BOUNDARY, answer).reason for answer in answers]


def boundary(text: str = "", kind: BoundaryKind = BoundaryKind.SENTENCE, **fields: Any) -> Boundary:
    whole = {"position": 9, "steps": 1, "reasoning_tokens": 8, **fields}
    return Boundary(kind=kind, text=text, **whole)


# The registry.


def test_every_policy_acts_somewhere_but_none() -> None:
    for name in POLICIES:
        assert bool(policy(name, max_probes=20, give_up_tokens=9).needs.kinds) is (name != "none")
    assert policy("none").decide(BOUNDARY, None).reason is None


def test_policies_joined_by_plus_are_built_in_their_order() -> None:
    built = build_policy(ExitSettings(policy="repetition+confidence"))
    assert [type(each).__name__ for each in built] == ["RepetitionPolicy", "ConfidencePolicy"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nonne", r"did you mean 'none'\? \(several are joined by \+\)"),
        ("", "use one of"),
        ("confidence+", "use one of"),
        ("confidence,budget", "did you mean"),
        ("budget+margin+budget", "name 'budget' once"),
        ("none+budget", "'none' stands alone"),
        ("pattern", "pattern=None.*needs a regular expression"),
        ("entropy", "max_probes=10.*after 20 checks"),
    ],
)
def test_a_name_that_cannot_be_honored_says_why(name: str, message: str) -> None:
    with pytest.raises(InvalidSetting, match=message):
        build_policy(ExitSettings(policy=name))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("threshold", 1.01),
        ("threshold", -0.1),
        ("threshold", math.nan),
        ("max_probes", -1),
        ("min_tokens", -1),
        ("min_interval", -1),
        ("answer_reserve", -1),
        ("probe_max_tokens", 0),
        ("probe_share", 1.5),
        ("probe_backoff", 0.5),
        ("probe_backoff", math.inf),
        ("sufficiency_score", 101),
        ("verifier_threshold", math.nan),
        ("margin_threshold", -0.1),
        ("entropy_alpha", 0),
        ("entropy_variance", -1),
        ("budget_tokens", -1),
        ("max_steps", 0),
        ("repetition_chunks", 1),
    ],
)
def test_settings_out_of_range_name_key_value_and_remedy(name: str, value: Any) -> None:
    with pytest.raises(InvalidSetting, match=f"{name}=.*use ") as caught:
        ExitSettings(**{name: value})
    assert (caught.value.name, caught.value.remedy[:3]) == (name, "use")


# confidence


def test_confidence_follows_its_settings() -> None:
    verdict = policy("confidence").decide(BOUNDARY, SURE)
    assert verdict.reason == "confident"
    assert verdict.confidence == pytest.approx(math.exp(-0.015))
    open_trial = InducedAnswer(SURE.ids, SURE.logprobs, ended=False)
    assert policy("confidence").decide(BOUNDARY, open_trial).confidence == 0.0
    assert reasons(policy("confidence", require_end=False), [open_trial]) == ["confident"]
    assert reasons(policy("confidence", skip_first=False), [SURE]) == [None]


# sufficiency


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("100", 1.0),
        ("Score: 85/100", 0.85),
        ("**100**", 1.0),
        ("enough", 0.0),
        ("", 0.0),
        ("1000", 0.0),
        ("-100", 0.0),
        ("99.5", 0.0),
        ("101", 0.0),
    ],
)
def test_a_score_is_the_first_whole_number_from_0_to_100(text: str, score: float) -> None:
    verdict = policy("sufficiency").decide(BOUNDARY, Reply(text))
    assert verdict.confidence == score
    assert verdict.reason == ("sufficient" if score == 1 else None)


def test_a_score_at_the_threshold_is_enough_and_no_number_never_is() -> None:
    lenient = policy("sufficiency", sufficiency_score=85)
    assert reasons(lenient, [Reply("84"), Reply("85")]) == [None, "sufficient"]
    assert reasons(policy("sufficiency", sufficiency_score=0), [Reply("no idea")]) == [None]


def test_judges_see_question_and_reasoning_as_they_are() -> None:
    for name in ("sufficiency", "verifier"):
        question = policy(name).needs.probe
        assert isinstance(question, Judge)
        message = question.message("{q} %s", "{0} \\n $x")
        assert message.startswith(question.before + "{q} %s" + question.between + "{0} \\n $x")


def test_scores_are_64_tokens_apart_at_least() -> None:
    assert policy("sufficiency").needs.min_interval == 64
    assert policy("sufficiency", min_interval=100).needs.min_interval == 100


# verifier


@pytest.mark.parametrize(
    ("reply", "probability"),
    [
        (Reply("Yes", (("Yes", math.log(0.6)), (" no", math.log(0.2)), ("x", -2.0))), 0.75),
        (Reply("yes", (("yes", -0.5), (" Yes.", -0.5))), 1.0),
        (Reply("No", (("No", -0.1),)), 0.0),
        (Reply("Maybe", (("Maybe", -0.1),)), 0.0),
        (Reply("yes", (("yes", math.nan),)), 0.0),
        (Reply("Yes."), 1.0),
        (Reply("no"), 0.0),
        (Reply(""), 0.0),
    ],
)
def test_yes_is_weighed_against_no(reply: Reply, probability: float) -> None:
    assert probability_of_yes(reply) == pytest.approx(probability)
    verdict = policy("verifier").decide(BOUNDARY, reply)
    assert verdict.reason == ("verified" if probability > 0.5 else None)


def test_the_judge_can_be_another_model() -> None:
    question = policy("verifier", verifier_url="http://j:1", verifier_model="m").needs.probe
    assert isinstance(question, Judge)
    assert (question.url, question.model) == ("http://j:1", "m")


# consistency


def said(*texts: str) -> list[Answer]:
    return [InducedAnswer((1,), (0.0,), ended=True, text=text) for text in texts]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["{5}</think>", "{5}"], "consistent"),
        (["{0.50}", r"{\frac{1}{2}}"], "consistent"),
        (["{5}", "{6}"], None),
        (["{}", "{}"], None),
        (["", ""], None),
        (["{5}", "{5} Wait, no"], None),
        (["{5} but", "{5}"], None),
        (["{5} I know", "{5} nobody"], "consistent"),  # "no" is no whole word in them
        (["{no}", "{no}"], "consistent"),  # an answer
        (["{wait}", "{wait} wait"], None),
        ([" 5 apples\n", "5apples"], "consistent"),  # without a box, the text
        (["5, hmm", "5, hmm"], None),
        (["{5", "{5"], "consistent"),  # cut by its length
    ],
)
def test_answers_agree_by_value_and_must_not_hesitate(
    texts: list[str], expected: str | None
) -> None:
    *_, last = reasons(policy("consistency", consistency="high"), said(*texts))
    assert last == expected


def test_a_window_of_answers_must_agree() -> None:
    asked = policy("consistency")
    assert reasons(asked, said("{5}", "{6}", "{5}", "{5}")) == [None] * 4
    verdict = asked.decide(BOUNDARY, said("{5}")[0])
    assert (verdict.reason, verdict.confidence) == ("consistent", 1.0)
    assert asked.decide(BOUNDARY, said("{4}")[0]).confidence == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("level", "interval"), [("mild", 64), ("low", 64), ("mid", 64), ("high", 64), ("max", 32)]
)
def test_answers_are_induced_every_n_tokens_from_n_on(level: Any, interval: int) -> None:
    needs = policy("consistency", consistency=level).needs
    assert (needs.min_tokens, needs.min_interval) == (interval, interval)
    assert isinstance(needs.probe, Induce)


def test_consistency_that_could_never_be_reached_is_refused() -> None:
    with pytest.raises(InvalidSetting, match=r"max_probes=7.*compares 8"):
        policy("consistency", consistency="mild", max_probes=7)
    with pytest.raises(InvalidSetting, match=r"consistency='most'.*use one of mild"):
        policy("consistency", consistency="most")


# margin


@pytest.mark.parametrize(
    ("logprobs", "end", "expected"),
    [
        ((-0.2, -1.2), -1.2, "margin"),
        ((-0.2, -1.3), -1.3, None),
        ((-0.2,), -0.2, "margin"),  # closing is the most likely token
        ((-0.2, -1.2), None, None),
        ((), -0.2, None),
        ((math.nan,), -0.2, None),
        ((-0.2,), -math.inf, None),
    ],
)
def test_a_small_margin_exits(
    logprobs: tuple[float, ...], end: float | None, expected: str | None
) -> None:
    verdict = policy("margin").decide(BOUNDARY, Distribution(logprobs, end))
    assert verdict.reason == expected
    assert verdict.confidence is not None
    assert 0 <= verdict.confidence <= 1


def test_the_margin_is_read_right_after_the_sentence() -> None:
    assert policy("margin").needs.probe == NextToken("", 20)
    strict = policy("margin", margin_threshold=0.25)
    assert reasons(strict, [Distribution((-0.2, -1.0), -1.0)]) == [None]


# entropy


def test_entropy_of_a_head_counts_the_rest_as_one_token() -> None:
    half = math.log(0.5)
    assert entropy_of_head([half, half]) == pytest.approx(math.log(2))
    assert entropy_of_head([half]) == pytest.approx(math.log(2))
    assert entropy_of_head([0.0]) == 0
    assert entropy_of_head([math.nan, -math.inf]) == 0
    assert entropy_of_head([1e-9]) == pytest.approx(0, abs=1e-6)


def spread(p: float) -> Distribution:
    return Distribution((math.log(p), math.log(1 - p)), None)


def test_a_settled_entropy_exits_after_four_over_alpha_checks() -> None:
    asked = policy("entropy", entropy_alpha=0.5, entropy_variance=0.001)
    assert reasons(asked, [spread(0.9)] * 9) == [None] * 7 + ["entropy"] * 2
    restless = policy("entropy", entropy_alpha=0.5, entropy_variance=0.001)
    assert reasons(restless, [spread(0.5), spread(0.99)] * 10) == [None] * 20


def test_the_variance_follows_its_formula() -> None:
    asked = policy("entropy", entropy_alpha=1.0, entropy_variance=0.0)
    assert reasons(asked, [spread(0.9)] * 5) == [None] * 5  # strictly below
    question = policy("entropy", max_probes=20, closing_text="\n</think>").needs.probe
    assert question == NextToken("\n</think>", 20)


# budget


@pytest.mark.parametrize(
    ("place", "tokens", "expected"),
    [
        (BoundaryKind.LINE, 99, None),
        (BoundaryKind.LINE, 100, "budget"),
        (BoundaryKind.ANY, 109, None),
        (BoundaryKind.ANY, 110, "budget"),
    ],
)
def test_a_budget_lands_at_a_line_end_or_ten_percent_later(
    place: BoundaryKind, tokens: int, expected: str | None
) -> None:
    at = boundary(kind=place, reasoning_tokens=tokens, generated=tokens, room=math.inf)
    assert policy("budget", budget_tokens=100).decide(at, None).reason == expected


@pytest.mark.parametrize(
    ("place", "tokens", "expected"),
    [
        (BoundaryKind.LINE, 99, None),
        (BoundaryKind.LINE, 100, "budget"),
        (BoundaryKind.ANY, 110, "budget"),
    ],
)
def test_a_budget_leaves_room_for_the_answer(
    place: BoundaryKind, tokens: int, expected: str | None
) -> None:
    at = boundary(kind=place, reasoning_tokens=tokens, generated=tokens, room=110 - tokens)
    assert policy("budget").decide(at, None).reason == expected
    assert policy("budget", budget_tokens=500).decide(at, None).reason == expected
    unbound = policy("budget", budget_tokens=500, budget_leaves_answer=False)
    assert unbound.decide(at, None).reason is None


def test_a_budget_of_steps_ends_before_one_more() -> None:
    asked = policy("budget", max_steps=2, budget_leaves_answer=False)
    assert asked.needs.kinds == {BoundaryKind.MARKER}
    decided = [
        asked.decide(boundary(kind=BoundaryKind.MARKER, steps=k), None).reason for k in (1, 2)
    ]
    assert decided == [None, "budget"]
    unset = policy("budget", budget_leaves_answer=False)
    assert unset.needs.kinds == frozenset()
    assert unset.decide(boundary(kind=BoundaryKind.MARKER, steps=9), None).reason is None


def test_min_tokens_delays_all_but_a_budget() -> None:
    for name in set(POLICIES) - {"none", "budget"}:
        asked = policy(name, min_tokens=200, max_probes=20, give_up_tokens=9)
        assert asked.needs.min_tokens == 200
    assert policy("budget", min_tokens=200).needs.min_tokens == 0
