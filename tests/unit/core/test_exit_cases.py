"""One table of exits, played to the bare controller and through rollouts: the same tokens."""

import pytest

from stepgrpo_core import StartProbe, ThinkingFormat
from stepgrpo_core.policies import Answer, Distribution, InducedAnswer, Reply
from tests.support.core.cases import EXIT_CASES, ExitCase
from tests.support.core.scripted import END, EOS, FIXED, START, THINKING, Played, Script, play
from training.rollouts.batch import Probing, Rollout, RolloutRequest, run_rollouts
from training.rollouts.patterns import matcher_of
from training.rollouts.scripted_engine import ScriptedEngine, Stream
from training.rollouts.types import Format, Request, Sampling

PROMPT, ASK, CHAT = (900, 901), 902, 903
ANSWER = (50, 51, EOS)
SAID = 1000  # what judges say, from here on


def script_of(case: ExitCase) -> Script:
    closed = [] if case.words[-1] == "" else ["</think>", "ok", ""]

    def answer(command: StartProbe) -> Answer | None:
        return case.answers[min(command.probe, len(case.answers) - 1)]

    return Script(["<think>", *case.words, *closed], answer=ANSWER, answers=answer)


def played(case: ExitCase) -> Played:
    settings = case.settings
    return play(script_of(case), settings, max_tokens=case.max_tokens, matcher=matcher_of(settings))


def rolled_out(case: ExitCase, probing: Probing) -> tuple[Rollout, ScriptedEngine]:
    """The case through `run_rollouts`: prompts and answers as a tokenizer would write them."""
    script = script_of(case)
    ids = script.ids
    texts = FIXED | dict(zip(ids, script.words, strict=True)) | {8: "{5}"}
    spoken = [each.text for each in case.answers if isinstance(each, Reply)]
    words = sorted(
        {*spoken, *(w for a in case.answers if isinstance(a, Reply) for w, _ in a.first)}
    )
    texts |= {SAID + number: word for number, word in enumerate(words)}
    form = Format(
        ThinkingFormat(START, END, THINKING.closing_ids),
        encode=lambda text: [ASK],
        texts_after=lambda prefix: lambda more: [texts.get(token, "") for token in more],
        decode=lambda some: "".join(texts.get(token, "") for token in some),
        chat=lambda message: [CHAT],
    )

    def streams(request: Request) -> Stream:
        generated = request.prompt_ids[len(PROMPT) :]
        if "probe" in request.id:
            number = int(request.id.partition("probe")[2])
            reading = case.answers[min(number, len(case.answers) - 1)]
            return probe_stream(reading, words)
        if generated[-len(THINKING.closing_ids) :] == THINKING.closing_ids:
            return Stream(ANSWER)
        return Stream(tuple(ids[len(generated) :]))

    engine = ScriptedEngine(streams)
    request = RolloutRequest(PROMPT, Sampling(max_tokens=case.max_tokens, seed=1))
    (rollout,) = run_rollouts(engine, [request], case.settings, form, probing=probing)
    return rollout, engine


def probe_stream(answer: Answer | None, words: list[str]) -> Stream:
    if isinstance(answer, InducedAnswer):
        logprobs = tuple(each or 0.0 for each in answer.logprobs)
        return Stream(answer.ids, logprobs)
    if isinstance(answer, Distribution):
        head = dict(enumerate(answer.logprobs, start=500))
        if answer.end is not None:
            head.popitem()
            head[END] = answer.end
        return Stream((500, 500), top=(head,))  # cut to one token by its limit
    if isinstance(answer, Reply):
        first = {SAID + words.index(word): value for word, value in answer.first}
        return Stream((SAID + words.index(answer.text), EOS), top=(first,) if first else ())
    return Stream((8,), cause="abort")


@pytest.mark.parametrize("case", EXIT_CASES.values(), ids=EXIT_CASES)
def test_policies_end_the_thinking_where_the_table_says(case: ExitCase) -> None:
    result = played(case)
    script = script_of(case)
    assert result.outcome.reason is case.reason
    if case.kept is None:
        assert result.emitted == script.ids[: case.max_tokens]
        return
    kept = [*script.ids[: 1 + case.kept], *THINKING.closing_ids]
    assert result.emitted == [*kept, *ANSWER]


@pytest.mark.parametrize("probing", ["parallel", "sequential"])
@pytest.mark.parametrize("case", EXIT_CASES.values(), ids=EXIT_CASES)
def test_rollouts_are_what_the_controller_emits(case: ExitCase, probing: Probing) -> None:
    rollout, engine = rolled_out(case, probing)
    result = played(case)
    assert list(rollout.ids) == result.emitted
    assert rollout.outcome.reason is case.reason
    assert rollout.injected.count(True) == (0 if case.kept is None else len(THINKING.closing_ids))
    assert len(rollout.ids) == len(rollout.logprobs) <= case.max_tokens
    assert not engine._running, "a request was left behind"
