"""Exits over finished generations, and rollouts by the same script."""

import dataclasses
import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from vllm import SamplingParams

from stepgrpo_core import ExitReason, ExitSettings
from tests.support.models import END, EOS, PROBLEMS, START, TOKENIZER, prompt_ids
from training.data.sources import Row
from training.exits.sweeps import Sweep
from training.exits.traces import RememberingEngine, record
from training.rollouts.batch import RolloutRequest, Sampling, run_rollouts
from training.rollouts.offline import Engine, Exited
from training.rollouts.scripted_engine import ScriptedEngine, Stream
from training.rollouts.types import Request


def ids_of(text: str) -> tuple[int, ...]:
    return tuple(TOKENIZER.encode(text, add_special_tokens=False))


PROMPT = tuple(prompt_ids(1))
OPENED = (*PROMPT, START)
THOUGHT = (*ids_of("12+7=19. Wait, 12+7=19. Wait, 12+7=19."), END, *ids_of("19"), EOS)
ANSWER = (*ids_of("the answer is 19"), EOS)
SETTINGS = ExitSettings(policy="confidence", min_interval=0, answer_reserve=2)
INDUCED = ids_of(SETTINGS.inducing_prompt)
TRIAL = (*ids_of("{19}"), END)


class ScriptedLlm:
    """Generates the thought, after a closing the answer, and confident trials."""

    def __init__(self, max_model_len: int = 1024) -> None:
        config = SimpleNamespace(max_model_len=max_model_len)
        self.llm_engine = SimpleNamespace(model_config=config)
        self.requests: list[tuple[tuple[int, ...], SamplingParams]] = []

    def get_tokenizer(self) -> Any:
        return TOKENIZER

    def generate(
        self, inputs: Sequence[Any], params: SamplingParams | Sequence[SamplingParams]
    ) -> list[Any]:
        each = [params] * len(inputs) if isinstance(params, SamplingParams) else params
        prompts = [tuple(entry["prompt_token_ids"]) for entry in inputs]
        self.requests += zip(prompts, each, strict=True)
        return [self._completion(*pair) for pair in zip(prompts, each, strict=True)]

    def _completion(self, prompt: tuple[int, ...], params: SamplingParams) -> Any:
        if len(prompt) >= self.llm_engine.model_config.max_model_len:
            raise ValueError("longer than the model's context")
        ids = script(prompt)
        cut = ids[: params.max_tokens]
        logprobs = [{token: SimpleNamespace(logprob=math.log(0.99))} for token in cut]
        reason = "stop" if len(cut) == len(ids) else "length"
        text = TOKENIZER.decode(cut, skip_special_tokens=True)
        completion = SimpleNamespace(
            token_ids=cut, text=text, finish_reason=reason, logprobs=logprobs
        )
        return SimpleNamespace(outputs=[completion])


def script(prompt: tuple[int, ...]) -> tuple[int, ...]:
    if prompt[-len(INDUCED) :] == INDUCED:
        return TRIAL
    generated = prompt[len(PROMPT) :]
    thought = (START, *THOUGHT)
    return thought[len(generated) :] if generated == thought[: len(generated)] else ANSWER


def played(request: Request) -> Stream:
    ids = script(request.prompt_ids)
    logprobs = (math.log(0.99),) * len(ids)
    top = ({token: value} for token, value in zip(ids, logprobs, strict=True))
    return Stream(ids, logprobs, top=tuple(top) if request.sampling.logprobs else ())


def exited(
    llm: ScriptedLlm,
    prompt: tuple[int, ...] = OPENED,
    settings: ExitSettings = SETTINGS,
    max_tokens: int = 64,
) -> Exited:
    engine = Engine(llm)
    params = SamplingParams(temperature=0.0, max_tokens=max_tokens)
    (found,) = engine.exits(engine.generate([prompt], params), settings, params)
    return found


@pytest.mark.parametrize("prompt", [PROMPT, OPENED], ids=["closed", "opened"])
def test_a_prompt_that_opens_the_thinking_exits_as_any_other(prompt: tuple[int, ...]) -> None:
    found = exited(ScriptedLlm(), prompt)
    assert found.outcome.reason is ExitReason.CONFIDENT
    assert found.generation.ids[-len(ANSWER) :] == ANSWER
    assert found.generation.ended


def test_an_answer_has_the_tokens_that_its_limit_leaves() -> None:
    whole = exited(ScriptedLlm())
    limit = len(whole.generation.ids) - 2
    llm = ScriptedLlm()
    found = exited(llm, max_tokens=limit)
    assert found.generation.ids == whole.generation.ids[:limit]
    assert not found.generation.ended
    assert llm.requests[-1][1].max_tokens == len(ANSWER) - 2


def test_a_probe_that_does_not_fit_has_failed() -> None:
    longest = len(OPENED) + len(THOUGHT) + len(ANSWER)
    found = exited(
        ScriptedLlm(longest),
        settings=dataclasses.replace(SETTINGS, inducing_prompt=SETTINGS.inducing_prompt * 9),
    )
    assert found.outcome.reason is ExitReason.NATURAL
    assert found.outcome.failed_probes == found.outcome.probes == 2
    assert (found.probes, found.probe_tokens) == ((), 0)


@pytest.mark.parametrize("policy", ["confidence", "consistency", "margin", "budget", "none"])
@pytest.mark.parametrize("prompt", [PROMPT, OPENED], ids=["closed", "opened"])
@pytest.mark.parametrize("max_tokens", [24, 40, 64])
def test_rollouts_complete_alike(policy: str, prompt: tuple[int, ...], max_tokens: int) -> None:
    settings = dataclasses.replace(SETTINGS, policy=policy, budget_tokens=10, max_probes=30)
    llm = ScriptedLlm()
    found = exited(llm, prompt, settings, max_tokens)
    request = RolloutRequest(prompt, Sampling(max_tokens, 0.0), thinking_open=prompt is OPENED)
    form = Engine(llm).form
    engine = ScriptedEngine(played)
    (rollout,) = run_rollouts(engine, [request], settings, form, probing="sequential")
    assert rollout.ids == found.generation.ids
    assert rollout.outcome == found.outcome
    assert rollout.ended == found.generation.ended
    assert rollout.probe_tokens == found.probe_tokens


def test_candidates_share_a_full_run_its_probes_and_equal_exits() -> None:
    llm = ScriptedLlm()
    engine = RememberingEngine(llm)
    message = PROBLEMS[1].prompt
    assert engine.chat_prompt(message) == PROMPT
    sweep = Sweep("confidence", (0.995, 0.9, 0.5))
    params = SamplingParams(temperature=0.0, max_tokens=300)
    (found,) = record(engine, [Row(message, "19", "here", 1)], [sweep], params, gold=True)
    safest, *others = found.exits["confidence"]
    assert (safest.tokens, safest.changed) == (found.tokens, False)
    assert others[0] == others[1]
    assert others[0].tokens < found.tokens
    none, *signals = found.signals["confidence"]
    assert none is None
    assert signals == pytest.approx([0.99, 0.99])
    assert len(llm.requests) == 1 + safest.probe_tokens // len(TRIAL) + 1  # run, probes, answer
