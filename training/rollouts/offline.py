"""Exits over finished generations: the offline driver of the core's controller.

A finished generation without exits is fed to a controller as if it were streaming; all probes of
all generations run in one batch, then all answers. Decisions depend on tokens alone, so the
completion is the one that a server would have delivered for the same generated tokens.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from vllm import LLM, SamplingParams

from stepgrpo_core import (
    ExitController,
    ExitSettings,
    Outcome,
    ProbeAnswered,
    StartProbe,
    ThinkingFormat,
)
from stepgrpo_core.control.boundaries import step_starts
from stepgrpo_core.control.probing import Probe, build_probe, read_answer
from stepgrpo_core.control.sequence import SequenceState
from stepgrpo_core.families.table import AUTO_FAMILY, FamilyChoice, apply_family
from stepgrpo_core.families.thinking import opens_in_thinking
from stepgrpo_core.policies import Answer, Induce, InducedAnswer, ProbeSpec
from training.data.prompts import PLAIN, PromptTemplate
from training.rollouts.patterns import matcher_of
from training.rollouts.texts import completion_text
from training.rollouts.vllm_engine import format_of

__all__ = ["Engine", "Exited", "Generation", "ProbeReading"]


@dataclass(frozen=True, slots=True)
class Generation:
    """One completion: token ids, text, and `ended`, true if the model ended it itself."""

    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]
    text: str
    ended: bool


@dataclass(frozen=True, slots=True)
class ProbeReading:
    """A trial answer after the first `position` tokens of a generation."""

    position: int
    text: str
    trial: InducedAnswer


@dataclass(frozen=True, slots=True)
class Exited:
    """A generation as it would be delivered under an exit policy."""

    generation: Generation
    outcome: Outcome
    probes: tuple[ProbeReading, ...]
    probe_tokens: int


class Engine:
    """A model on vLLM in this process, with the calls that calibration and evaluation need."""

    def __init__(
        self, llm: LLM, choice: FamilyChoice = AUTO_FAMILY, prompts: PromptTemplate = PLAIN
    ) -> None:
        self.llm = llm
        self.prompts = prompts
        self.tokenizer: Any = llm.get_tokenizer()
        self.form = format_of(self.tokenizer, ExitSettings().closing_text, choice)
        self.thinking = self.form.thinking
        self._max_model_len: int = llm.llm_engine.model_config.max_model_len

    @classmethod
    def load(
        cls,
        model: str,
        *,
        dtype: str = "auto",
        max_model_len: int = 1024,
        seed: int = 0,
        choice: FamilyChoice = AUTO_FAMILY,
        prompts: PromptTemplate = PLAIN,
    ) -> Self:
        """Start vLLM for `model`; `choice` is its family, if the tokenizer does not identify it."""
        return cls(
            LLM(
                model=model,
                dtype=dtype,  # auto converts float32 weights to bfloat16
                enforce_eager=True,
                max_model_len=max_model_len,
                enable_prefix_caching=True,
                seed=seed,
            ),
            choice,
            prompts,
        )

    def chat_prompt(self, message: str) -> tuple[int, ...]:
        """Return the token ids of a user message in the model's chat template."""
        return self.prompts.render(self.tokenizer, message)

    def generate(
        self,
        prompts: Sequence[tuple[int, ...]],
        params: SamplingParams | Sequence[SamplingParams],
    ) -> list[Generation]:
        """Return the completions of all prompts, in order; `params` are one for all, or one each.

        The progress bar is vLLM's.
        """
        return [
            Generation(
                prompt_ids=prompt,
                ids=tuple(output.outputs[0].token_ids),
                text=self._text(prompt, output.outputs[0].token_ids),
                ended=output.outputs[0].finish_reason == "stop",
            )
            for prompt, output in zip(prompts, self._run(prompts, params), strict=True)
        ]

    def _text(self, prompt: tuple[int, ...], ids: Sequence[int]) -> str:
        opened = opens_in_thinking(self.tokenizer, self.thinking, prompt)
        thinks = opened or self.form.implies_thinking(prompt)
        return completion_text(self.tokenizer, ids, self.thinking, thinks=thinks)

    def exits(
        self,
        generations: Sequence[Generation],
        settings: ExitSettings,
        params: SamplingParams,
    ) -> list[Exited]:
        """Return the result of `settings` for each generation; `params` sample the answers.

        A probe that does not fit into the model's context counts as failed.
        """
        settings = apply_family(settings, self.form.family)
        runs = [self._start(each, settings, params) for each in generations]
        self._probe(runs)
        self._answer([each for each in runs if each.state.close], params)
        return [each.result(self.tokenizer, self.thinking) for each in runs]

    def step_starts(self, generation: Generation, markers: Sequence[str]) -> tuple[int, ...]:
        """Return the number of tokens before each step marker of a generation."""
        prompt, thinking = generation.prompt_ids, self.thinking
        return step_starts(
            generation.ids,
            self.form.texts_after(prompt)(generation.ids),
            thinking,
            markers=markers,
            thinking_open=opens_in_thinking(self.tokenizer, thinking, prompt),
            thinking_implied=self.form.implies_thinking(prompt),
        )

    def has_room(self, generation: Generation, position: int, spec: Induce) -> bool:
        """Return whether the context has room for a trial answer after `position` tokens."""
        induced = len(self.form.encode(spec.text)) + spec.max_tokens
        return len(generation.prompt_ids) + position + induced <= self._max_model_len

    def probe(
        self, generations: Sequence[Generation], positions: Sequence[int], spec: Induce
    ) -> list[ProbeReading]:
        """Return a trial answer after the first `positions[i]` tokens of each `generations[i]`."""
        probes = [
            build_probe(spec, each.prompt_ids, each.ids[:position], self.form)
            for each, position in zip(generations, positions, strict=True)
        ]
        outputs = self._generate([probe for probe in probes if probe])  # a trial is never None
        return [
            ProbeReading(position, output.text, self._induced(spec, output))
            for position, output in zip(positions, outputs, strict=True)
        ]

    def _run(
        self,
        prompts: Sequence[tuple[int, ...]],
        params: SamplingParams | Sequence[SamplingParams],
    ) -> list[Any]:
        if not prompts:
            return []
        inputs = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        outputs: list[Any] = self.llm.generate(inputs, params)
        return outputs

    def _generate(self, probes: Sequence[Probe]) -> list[Any]:
        """Return vLLM's completions of probes."""
        params = [
            SamplingParams(
                temperature=0.0,
                max_tokens=probe.max_tokens,
                logprobs=probe.top,
                stop_token_ids=list(probe.stop_ids),
            )
            for probe in probes
        ]
        return [each.outputs[0] for each in self._run([p.prompt_ids for p in probes], params)]

    def _answer_of(self, spec: ProbeSpec, completion: Any) -> Answer | None:
        ids, entries = completion.token_ids, completion.logprobs
        logprobs = [entry[token].logprob for entry, token in zip(entries, ids, strict=True)]
        top = {token: found.logprob for token, found in entries[0].items()}
        return read_answer(spec, ids, logprobs, top, self.form)

    def _induced(self, spec: Induce, completion: Any) -> InducedAnswer:
        answer = self._answer_of(spec, completion)
        assert isinstance(answer, InducedAnswer)
        return answer

    def _start(
        self, generation: Generation, settings: ExitSettings, params: SamplingParams
    ) -> "_Run":
        prompt = generation.prompt_ids
        controller = ExitController(
            dataclasses.replace(settings, min_tokens=max(settings.min_tokens, params.min_tokens)),
            self.thinking,
            max_tokens=params.max_tokens,
            thinking_open=opens_in_thinking(self.tokenizer, self.thinking, prompt),
            thinking_implied=self.form.implies_thinking(prompt),
            may_answer=True,
            matcher=matcher_of(settings),
        )
        run = _Run(generation, SequenceState(controller, prompt))
        run.state.take(
            generation.ids,
            self.form.texts_after(prompt)(generation.ids),
            "eos" if generation.ended else "length",
        )
        run.check()
        return run

    def _probe(self, runs: "Sequence[_Run]") -> None:
        """Generate all probes in one batch; then every run decides for itself."""
        put = []
        for run in runs:
            for command in tuple(run.state.probes.values()):
                probe = run.state.probe_for(command, self.form)
                if probe is None or len(probe.prompt_ids) >= self._max_model_len:
                    run.end_probe(command, None)
                else:
                    put.append((run, command, probe))
        completions = self._generate([probe for *_, probe in put])
        for (run, command, _), completion in zip(put, completions, strict=True):
            answer = self._answer_of(command.spec, completion)
            run.spent.append((command.position, completion, answer))
            run.end_probe(command, answer)

    def _answer(self, runs: "Sequence[_Run]", params: SamplingParams) -> None:
        """Generate the answers of all runs that exited, each with the tokens it has left."""
        prompts = [(*run.generation.prompt_ids, *run.state.prefix_ids) for run in runs]
        answers = self.generate(prompts, [_answer_params(params, run.state) for run in runs])
        for run, answer in zip(runs, answers, strict=True):
            run.state.take(answer.ids, cause="eos" if answer.ended else "length")


def _answer_params(params: SamplingParams, state: SequenceState) -> SamplingParams:
    own = params.clone()
    own.max_tokens = state.answer_max_tokens
    own.min_tokens = max(own.min_tokens - len(state.prefix_ids), 0)
    return own


class _Run:
    """One generation under a controller."""

    def __init__(self, generation: Generation, state: SequenceState) -> None:
        self.generation, self.state = generation, state
        self.spent: list[tuple[int, Any, Answer | None]] = []
        """Position, vLLM's completion and the answer of each probe that was generated."""

    def end_probe(self, command: StartProbe, answer: Answer | None) -> None:
        self.state.end_probe(ProbeAnswered(command.probe, answer))
        self.check()

    def check(self) -> None:
        """Raise the error of a policy, if any: results without its exits would be wrong."""
        if fault := self.state.controller.fault:
            raise fault

    def result(self, tokenizer: Any, thinking: ThinkingFormat) -> Exited:
        state, generation, spent = self.state, self.generation, self.spent
        outcome = state.outcome
        if state.close is not None:
            generation = Generation(
                prompt_ids=generation.prompt_ids,
                ids=tuple(state.ids),
                text=completion_text(tokenizer, state.ids, thinking, thinks=True),
                ended=state.ended,
            )
            # The controller got the whole generation; a stream would have ended here.
            cut = state.close.position
            spent = [each for each in spent if each[0] <= cut]
            asked = sum(each.boundary.position <= cut for each in state.controller.asked)
            outcome = dataclasses.replace(outcome, probes=asked)
        return Exited(
            generation=generation,
            outcome=outcome,
            probes=tuple(
                ProbeReading(position, completion.text, answer)
                for position, completion, answer in spent
                if isinstance(answer, InducedAnswer)
            ),
            probe_tokens=sum(len(completion.token_ids) for _, completion, _ in spent),
        )
