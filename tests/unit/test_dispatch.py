"""Who runs a request: what is asked of its stops decides, and what they mean, for every policy."""

from typing import Any

import pytest
from vllm.sampling_params import RequestOutputKind, SamplingParams

from service.engine.controlled import ControlledRequest
from service.engine.dispatch import Dispatcher
from service.engine.passthrough import PassthroughRequest
from service.engine.request import EngineRequest, Opening, ServedModel
from service.load.probe_load import Load
from service.load.running import CannotFinish
from service.records.reasons import Abstained
from service.records.sequence import SequenceRecord
from stepgrpo_core import ExitReason, ExitSettings, Outcome
from stepgrpo_core.families.prompts import PromptState
from stepgrpo_core.families.thinking import tokenizer_format
from tests.support.models import TOKENIZER
from tests.support.service.thinking import PROMPT, THINKING

POLICIES = ["none", "budget", "repetition"]


class Obstructed:
    """A decider that knows of one obstacle."""

    def __init__(self, obstacle: Abstained | None = None) -> None:
        self._obstacle = obstacle

    def obstacle(self, _: EngineRequest) -> Abstained | None:
        return self._obstacle


def run(
    policy: str,
    *,
    opening: Opening = Opening(),  # noqa: B008 - frozen
    thinks: bool = True,
    everywhere: bool = False,
    shadow: bool = False,
    obstacle: Abstained | None = None,
    stop_ids: frozenset[int] = frozenset(),
    **params: Any,
) -> ControlledRequest | PassthroughRequest:
    writing = tokenizer_format(TOKENIZER, THINKING) if thinks else None
    served = ServedModel(None, TOKENIZER, writing, Load(capacity=8, share=1.0))
    kind = {"output_kind": RequestOutputKind.DELTA} | params
    request = EngineRequest(
        "r", {"prompt_token_ids": PROMPT}, SamplingParams(**kind), {}, False, stop_ids, opening
    )
    decider: Any = Obstructed(obstacle)
    settings = ExitSettings(policy=policy, shadow=shadow)
    records = [SequenceRecord(index, "m", policy, 1) for index in range(request.params.n)]
    return Dispatcher(served, decider, stop_in_thinking=everywhere).run(request, settings, records)


def stops_everywhere(made: ControlledRequest | PassthroughRequest) -> bool:
    if isinstance(made, PassthroughRequest):
        return True
    return all(each._stops is None for each in made._sequences)


@pytest.mark.parametrize("shadow", [False, True])
@pytest.mark.parametrize("policy", POLICIES)
def test_stops_are_the_answers_under_every_policy(policy: str, shadow: bool) -> None:
    for params in ({"stop": ["x"]}, {"stop_token_ids": [5], "stop_ids": frozenset({5})}):
        assert not stops_everywhere(run(policy, shadow=shadow, **params))
        whole = run(policy, shadow=shadow, n=3, output_kind=RequestOutputKind.FINAL_ONLY, **params)
        assert not stops_everywhere(whole)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(
    "options",
    [
        {"everywhere": True},
        {"opening": Opening(PromptState.CLOSED)},
        {"prompt_logprobs": 1},
        {"thinks": False, "policy": "none"},
        {"output_kind": RequestOutputKind.CUMULATIVE, "policy": "none"},
    ],
)
def test_elsewhere_they_are_vllms_for_all_alike(policy: str, options: dict[str, Any]) -> None:
    assert stops_everywhere(run(**({"policy": policy} | options), stop=["x"]))


def test_without_stops_nothing_changes() -> None:
    assert isinstance(run("none"), PassthroughRequest)
    assert isinstance(run("none", stop_token_ids=[TOKENIZER.eos_token_id]), PassthroughRequest)
    assert isinstance(run("budget"), ControlledRequest)


def test_a_thought_of_the_callers_is_counted_and_ends_for_no_reason_of_ours() -> None:
    outcome = Outcome(ExitReason.NATURAL, 1, 30, 0, 0, (), None)
    assert Opening(PromptState.OPENED).reported(outcome) == outcome
    told = Opening(PromptState.INSIDE).reported(outcome)
    assert (told.reason, told.reasoning_tokens) == (ExitReason.NONE, 30)


def test_what_nothing_can_close_cannot_be_finished_either() -> None:
    for stop in ([], ["x"]):
        made = run("none", obstacle=Abstained.CONTINUED_THINKING, stop=stop)
        with pytest.raises(CannotFinish, match="inside a thought"):
            made.finish_thinking()
