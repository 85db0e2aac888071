"""Exits over finished generations: the batch driver of the core's controller.

A finished, un-exited generation is put to a controller as if it were streaming; all its probes
run in one batch, then all answers. Because decisions depend on tokens alone, the completion is
the one a server would have delivered for the same generated tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vllm import LLM, SamplingParams

from stepgrpo_core import (
    CloseThinking,
    ExitController,
    ExitSettings,
    Finished,
    Outcome,
    ProbeAnswered,
    StartProbe,
    Tokens,
)
from stepgrpo_core.control.boundaries import step_starts
from stepgrpo_core.control.events import Command
from stepgrpo_core.control.probing import trial_end
from stepgrpo_core.families.table import RECOGNISED, Choice, in_family
from stepgrpo_core.families.thinking import opens_in_thinking
from stepgrpo_core.policies import Induce, Trial
from training.data.prompts import PLAIN, PromptTemplate
from training.rollouts.patterns import matcher_of
from training.rollouts.vllm_engine import format_of

__all__ = ["Engine", "Exited", "Generation", "ProbeReading"]


@dataclass(frozen=True, slots=True)
class Generation:
    """One completion: token ids, their text, and whether the model ended it itself."""

    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]
    text: str
    ended: bool


@dataclass(frozen=True, slots=True)
class ProbeReading:
    """A trial answer after the first `position` tokens of a generation."""

    position: int
    text: str
    trial: Trial


@dataclass(frozen=True, slots=True)
class Exited:
    """A generation as an exit policy would have delivered it."""

    generation: Generation
    outcome: Outcome
    probes: tuple[ProbeReading, ...]
    probe_tokens: int


class Engine:
    """A model on vLLM in this process, with the few calls that evaluation needs."""

    def __init__(
        self, llm: LLM, choice: Choice = RECOGNISED, prompts: PromptTemplate = PLAIN
    ) -> None:
        self.llm = llm
        self.prompts = prompts
        self.tokenizer: Any = llm.get_tokenizer()
        self.form = format_of(self.tokenizer, ExitSettings().closing_text, choice)
        self.thinking = self.form.thinking

    @classmethod
    def load(
        cls,
        model: str,
        *,
        dtype: str = "auto",
        max_model_len: int = 1024,
        seed: int = 0,
        choice: Choice = RECOGNISED,
        prompts: PromptTemplate = PLAIN,
    ) -> "Engine":
        """Start vLLM for `model`; `choice` is its family, where its tokenizer does not tell."""
        return cls(
            LLM(
                model=model,
                dtype=dtype,  # auto makes bfloat16 of float32 weights
                enforce_eager=True,
                max_model_len=max_model_len,
                enable_prefix_caching=True,
                seed=seed,
            ),
            choice,
            prompts,
        )

    def chat_prompt(self, message: str) -> tuple[int, ...]:
        """Token ids of a user message in the model's chat template, ready to be answered."""
        return self.prompts.render(self.tokenizer, message)

    def generate(
        self, prompts: Sequence[tuple[int, ...]], params: SamplingParams
    ) -> list[Generation]:
        """Completions of all prompts, in order; the progress bar is vLLM's."""
        return [
            Generation(
                prompt_ids=prompt,
                ids=tuple(output.outputs[0].token_ids),
                text=output.outputs[0].text,
                ended=output.outputs[0].finish_reason == "stop",
            )
            for prompt, output in zip(prompts, self._run(prompts, params), strict=True)
        ]

    def exits(
        self,
        generations: Sequence[Generation],
        settings: ExitSettings,
        params: SamplingParams,
    ) -> list[Exited]:
        """What `settings` make of each generation; `params` samples the answers.

        Questions other than trial answers count as failed probes.
        """
        pending = [self._start(each, settings, params) for each in generations]
        self._probe([each for each in pending if each.commands])
        self._answer([each for each in pending if each.close], params)
        return [each.result() for each in pending]

    def step_starts(self, generation: Generation, markers: Sequence[str]) -> tuple[int, ...]:
        """Tokens of a generation before each of its step markers."""
        prompt, thinking = generation.prompt_ids, self.thinking
        return step_starts(
            generation.ids,
            self.form.texts_after(prompt)(generation.ids),
            thinking,
            markers=markers,
            thinking_open=opens_in_thinking(self.tokenizer, thinking, prompt),
            thinking_implied=self.form.implies_thinking(prompt),
        )

    def has_room(self, generation: Generation, position: int, question: Induce) -> bool:
        """Whether the model's context holds a trial answer after `position` tokens."""
        induced = len(self.form.encode(question.text)) + question.max_tokens
        longest: int = self.llm.llm_engine.model_config.max_model_len
        return len(generation.prompt_ids) + position + induced <= longest

    def probe(
        self, generations: Sequence[Generation], positions: Sequence[int], question: Induce
    ) -> list[ProbeReading]:
        """A trial answer after `positions[i]` tokens of `generations[i]`, for all i at once."""
        induced = self.form.encode(question.text)
        outputs = self._run(
            [
                (*each.prompt_ids, *each.ids[:position], *induced)
                for each, position in zip(generations, positions, strict=True)
            ],
            SamplingParams(
                temperature=0.0,
                max_tokens=question.max_tokens,
                logprobs=0,
                stop_token_ids=list(self.thinking.stop_ids),
            ),
        )
        return [
            ProbeReading(position, output.outputs[0].text, self._trial(output.outputs[0]))
            for position, output in zip(positions, outputs, strict=True)
        ]

    def _run(self, prompts: Sequence[tuple[int, ...]], params: SamplingParams) -> list[Any]:
        if not prompts:
            return []
        inputs = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        outputs: list[Any] = self.llm.generate(inputs, params)
        return outputs

    def _trial(self, completion: Any) -> Trial:
        ids = tuple(completion.token_ids)
        logprobs = tuple(
            entry[token].logprob for entry, token in zip(completion.logprobs, ids, strict=True)
        )
        size, ended = trial_end(self.thinking, ids, self.form.decode)
        return Trial(ids[:size], logprobs[:size], ended, text=completion.text)

    def _start(
        self,
        generation: Generation,
        settings: ExitSettings,
        params: SamplingParams,
    ) -> "_Run":
        settings = in_family(settings, self.form.family)
        prompt = generation.prompt_ids
        controller = ExitController(
            settings,
            self.thinking,
            max_tokens=params.max_tokens,
            thinking_open=opens_in_thinking(self.tokenizer, self.thinking, prompt),
            thinking_implied=self.form.implies_thinking(prompt),
            may_answer=True,
            matcher=matcher_of(settings),
        )
        texts = self.form.texts_after(prompt)(generation.ids)
        run = _Run(generation, controller)
        run.execute(
            controller.receive(
                Tokens(generation.ids, texts), Finished("eos" if generation.ended else "length")
            )
        )
        return run

    def _probe(self, runs: "Sequence[_Run]") -> None:
        """Every trial answer in one batch; all questions of one batch induce alike."""
        asked = [(run, command) for run in runs for command in run.commands]
        trials = [(run, c, c.question) for run, c in asked if isinstance(c.question, Induce)]
        readings = iter(
            self.probe(
                [run.generation for run, _, _ in trials],
                [command.position for _, command, _ in trials],
                trials[0][2],
            )
            if trials
            else ()
        )
        for run, command in asked:
            induced = isinstance(command.question, Induce)
            run.take(command, next(readings) if induced else None)

    def _answer(self, runs: "Sequence[_Run]", params: SamplingParams) -> None:
        answers = self.generate([run.answer_prompt() for run in runs], params)
        for run, answer in zip(runs, answers, strict=True):
            run.finish(answer, self.tokenizer)


class _Run:
    """One generation under a controller."""

    def __init__(self, generation: Generation, controller: ExitController) -> None:
        self.generation = generation
        self.controller = controller
        self.commands: list[StartProbe] = []
        self.close: CloseThinking | None = None
        self._readings: list[ProbeReading] = []

    def execute(self, commands: Sequence[Command]) -> None:
        if self.controller.fault:
            raise self.controller.fault
        for command in commands:
            if isinstance(command, StartProbe):
                self.commands.append(command)
            elif isinstance(command, CloseThinking):
                self.close = command

    def take(self, command: StartProbe, reading: ProbeReading | None) -> None:
        if reading is not None:
            self._readings.append(reading)
        if self.close is None:
            trial = None if reading is None else reading.trial
            self.execute(self.controller.receive(ProbeAnswered(command.probe, trial)))

    def _kept(self) -> tuple[int, ...]:
        assert self.close is not None
        return (*self.generation.ids[: self.close.position], *self.close.closing_ids)

    def answer_prompt(self) -> tuple[int, ...]:
        return (*self.generation.prompt_ids, *self._kept())

    def finish(self, answer: Generation, tokenizer: Any) -> None:
        ids = (*self._kept(), *answer.ids)
        self.controller.receive(Finished("eos" if answer.ended else "length"))
        self.generation = Generation(
            prompt_ids=self.generation.prompt_ids,
            ids=ids,
            text=tokenizer.decode(ids, skip_special_tokens=True),
            ended=answer.ended,
        )

    def result(self) -> Exited:
        spent = self._readings
        if self.close is not None:  # a live server stops asking after the exit
            spent = [each for each in spent if each.position <= self.close.position]
        return Exited(
            generation=self.generation,
            outcome=self.controller.outcome,
            probes=tuple(spent),
            probe_tokens=sum(len(each.trial.ids) for each in spent),
        )
