"""Questions as requests: what is asked, what comes back, and that no refusal fails a rollout."""

import dataclasses
from collections.abc import Iterable

import pytest

from stepgrpo_core import ExitReason, ExitSettings, ThinkingFormat
from stepgrpo_core.control.probing import Probe, build_probe
from stepgrpo_core.policies import Distribution, Induce, InducedAnswer, Judge, NextToken, Reply
from training.rollouts.batch import Probing, RolloutRequest, run_rollouts
from training.rollouts.probes import answer_of, probe_request
from training.rollouts.scripted_engine import ScriptedEngine, Stream
from training.rollouts.types import Delta, Format, Request, Sampling

END, EOS, ASK, CHAT = 2, 3, 7, 8
WORDS = {1: "<think>", END: "</think>", EOS: "", 4: " Wait", 5: "\n\n", 20: "yes", 21: "no"}
JUDGE = Judge("Problem: ", " Reasoning: ", " Enough?", max_tokens=3, top=2)


def decode(ids: Iterable[int]) -> str:
    return "".join(WORDS.get(token, f" w{token}") for token in ids)


BARE = Format(
    ThinkingFormat(1, END, (END,)),
    encode=lambda text: [ASK],
    texts_after=lambda prefix: lambda ids: [WORDS.get(token, f" w{token}") for token in ids],
)
FORM = dataclasses.replace(BARE, decode=decode, chat=lambda message: [CHAT, len(message)])


def test_a_trial_is_induced_inside_the_thinking() -> None:
    probe = build_probe(Induce("so", 9), (90,), (1, 10), BARE)
    assert probe == Probe((90, 1, 10, ASK), 9, 0, (END,))
    expected = Request("p", (90, 1, 10, ASK), Sampling(9, 0.0, stop_token_ids=(END,)))
    assert probe_request("p", probe) == expected


def test_a_distribution_is_read_after_what_is_appended_if_anything_is() -> None:
    for text, ids in (("", (90, 1)), ("close", (90, 1, ASK))):
        probe = build_probe(NextToken(text, 20), (90,), (1,), BARE)
        assert probe == Probe(ids, 1, 20, ())
        assert probe_request("p", probe) == Request("p", ids, Sampling(1, 0.0, logprobs=20))


def test_a_judge_gets_a_conversation_of_its_own() -> None:
    message = "Problem:  w90 Reasoning:  w10 w11 Enough?"
    probe = build_probe(JUDGE, (90,), (10, 11), FORM)
    assert probe == Probe((CHAT, len(message)), 3, 2, ())


def test_judges_that_cannot_be_asked_here_are_not() -> None:
    assert build_probe(JUDGE, (90,), (10,), BARE) is None
    elsewhere = dataclasses.replace(JUDGE, url="http://judge:1")
    assert build_probe(elsewhere, (90,), (10,), FORM) is None


def test_answers_are_read_by_the_kind_of_question() -> None:
    top = {20: -0.2, END: -1.5, 21: -3.0}
    one = [Delta("p", (20,), (-0.2,), "length", (top,))]
    assert answer_of(NextToken("", 3), one, BARE) == Distribution((-0.2, -1.5, -3.0), -1.5)
    assert answer_of(JUDGE, one, FORM) == Reply(
        "yes", (("yes", -0.2), ("</think>", -1.5), ("no", -3.0))
    )
    two = [Delta("p", (10,), (-0.5,)), Delta("p", (END,), (-0.1,), "eos")]
    expected = InducedAnswer((10, END), (-0.5, -0.1), ended=True, text=" w10</think>")
    assert answer_of(Induce("", 9), two, FORM) == expected


def test_what_failed_or_lacks_its_log_probs_is_no_answer() -> None:
    for question in (Induce("", 9), NextToken("", 3), JUDGE):
        assert answer_of(question, [Delta("p", (10,), (0.0,), "abort")], FORM) is None
    assert answer_of(NextToken("", 3), [Delta("p", (10,), (0.0,), "length")], FORM) is None


class Narrow(ScriptedEngine):
    """Refuses probes, as an engine does whose context they exceed."""

    def add(self, request: Request) -> None:
        if "probe" in request.id:
            raise ValueError("longer than the maximum model length")
        ScriptedEngine.add(self, request)


THINKING = (1, 10, 5, 4, 11, 5, 4, 12, 5, 4, 13, 5, 4, 14, END, 20, EOS)


def stream(request: Request) -> Stream:
    return Stream(THINKING[len(request.prompt_ids) - 1 :])


@pytest.mark.parametrize("probing", ["parallel", "sequential"])
@pytest.mark.parametrize(
    "settings",
    [
        ExitSettings(policy="confidence+verifier", min_interval=0),
        ExitSettings(policy="verifier", verifier_url="http://judge:1", min_interval=0),
    ],
    ids=["refused by the engine", "not asked here"],
)
def test_a_probe_that_cannot_be_put_is_a_failed_probe(
    settings: ExitSettings, probing: Probing
) -> None:
    engine = Narrow(stream)
    request = RolloutRequest((90,), Sampling(max_tokens=200))
    (rollout,) = run_rollouts(engine, [request], settings, FORM, probing=probing)
    assert rollout.ids == THINKING
    assert rollout.outcome.reason is ExitReason.NATURAL
    assert rollout.outcome.failed_probes == rollout.outcome.probes >= 3


def test_an_engine_that_refuses_the_completion_itself_raises_through() -> None:
    class Refusing(ScriptedEngine):
        def add(self, request: Request) -> None:
            raise ValueError(f"{request.id} is longer than the maximum model length")

    with pytest.raises(ValueError, match="maximum model length"):
        run_rollouts(
            Refusing(stream), [RolloutRequest((90,), Sampling(max_tokens=9))], ExitSettings(), FORM
        )
