"""Rollout function of `trl.GRPOTrainer` (TRL 1.16): truncated, plain or serial.

TRL passes the prompts of this rank, each repeated for every completion of its group, and expects
one completion per entry, in order. It also calls this in evaluation, where nothing is truncated.
Every completion has its own seed, derived from the run's seed, the step and its position, so a
resumed run makes the same rollouts as an uninterrupted one.
"""

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any

from tqdm import tqdm

from stepgrpo_core import ExitSettings
from stepgrpo_core.families.thinking import opens_in_thinking
from training.config.schema import RunConfig
from training.data.prompts import PromptTemplate
from training.rollouts.batch import Format, Rollout, RolloutRequest, Sampling, run_rollouts
from training.rollouts.counters import Counters
from training.rollouts.remote import RemoteRollouts
from training.rollouts.s_grpo import serial_rollouts
from training.rollouts.seeds import row_seed
from training.rollouts.texts import text_of
from training.rollouts.types import RolloutFailed
from training.rollouts.vllm_engine import VllmEngine

__all__ = [
    "RolloutFunction",
]

Run = Callable[[Sequence[RolloutRequest], ExitSettings], list[Rollout]]


class RolloutFunction:
    """Generates the completions of a batch."""

    def __init__(self, config: RunConfig, tokenizer: Any, form: Format) -> None:
        self.counters = Counters()
        self._config, self._tokenizer, self._form = config, tokenizer, form

    def __call__(self, prompts: Sequence[Any], trainer: Any) -> dict[str, Any]:
        """Return TRL's columns, and `rollout`, `text` and `group_size` for the reward."""
        training = trainer.model.training
        size = trainer.num_generations if training else trainer.num_generations_eval
        requests = self._requests(prompts, trainer, training=training)
        try:
            rollouts = self._complete(requests, trainer, size, training=training)
        except Exception as error:
            raise RolloutFailed(f"vLLM failed while generating: {error!r}") from error
        if training and not self.counters.add(rollouts):
            _warn_all_truncated(trainer)
        columns = {
            "prompt_ids": [list(each.prompt_ids) for each in rollouts],
            "completion_ids": [list(each.ids) for each in rollouts],
            "logprobs": [list(each.logprobs) for each in rollouts],
            "rollout": rollouts,
            "text": [text_of(each, self._tokenizer, self._form.thinking) for each in rollouts],
            "group_size": size,
        }
        if not self._config.rollout.train_injected:
            columns["env_mask"] = [[int(not put) for put in each.injected] for each in rollouts]
        return columns

    def _complete(
        self, requests: Sequence[RolloutRequest], trainer: Any, size: int, *, training: bool
    ) -> list[Rollout]:
        rollout = self._config.rollout
        untruncated = ExitSettings(markers=rollout.exit.markers)
        bar = tqdm(total=len(requests), desc="rollouts", leave=False, disable=None)
        with bar:
            run = self._runner(trainer, lambda _: bar.update())
            if training and rollout.kind == "serial":
                return serial_rollouts(run, requests, size, self._form)
            if training and rollout.kind == "truncated":
                return run(_with_truncation(requests, size, rollout.truncated_share), rollout.exit)
            return run(requests, untruncated)

    def _runner(self, trainer: Any, finished: Callable[[Rollout], Any]) -> Run:
        vllm = trainer.vllm_generation
        if vllm.mode == "colocate":
            engine = VllmEngine(vllm.llm.llm_engine)
            probing = self._config.rollout.probing
            return lambda requests, settings: run_rollouts(
                engine, requests, settings, self._form, probing=probing, finished=finished
            )
        args, thinking = trainer.args, self._form.thinking
        url = args.vllm_server_base_url or f"http://{args.vllm_server_host}:{args.vllm_server_port}"
        model = self._config.model.served_name or self._config.model.name
        key = os.environ.get("OPENAI_API_KEY")
        return lambda requests, settings: RemoteRollouts(
            url, model, settings, thinking, api_key=key
        ).run(requests, finished)

    def _requests(
        self, prompts: Sequence[Any], trainer: Any, *, training: bool
    ) -> list[RolloutRequest]:
        args, thinking = trainer.args, self._form.thinking
        template = PromptTemplate(chat_template_kwargs=trainer.chat_template_kwargs)
        requests = []
        for row, prompt in enumerate(prompts):
            ids = template.render(self._tokenizer, prompt)
            place = (
                "train" if training else "eval",
                trainer.state.global_step,
                trainer.accelerator.process_index,
                row,
            )
            sampling = Sampling(
                max_tokens=args.max_completion_length,
                temperature=args.temperature,
                top_p=args.top_p,
                top_k=args.top_k or 0,
                min_p=args.min_p or 0.0,
                repetition_penalty=args.repetition_penalty,
                seed=row_seed(self._config.seed, *place),
            )
            requests.append(
                RolloutRequest(ids, sampling, opens_in_thinking(self._tokenizer, thinking, ids))
            )
        return requests


def _warn_all_truncated(trainer: Any) -> None:
    """Warn that no completion of a generation was finished."""
    if trainer.accelerator.is_main_process:
        print(
            f"step {trainer.state.global_step + 1}: every completion was truncated at "
            f"trl.max_completion_length={trainer.args.max_completion_length}, so nothing was "
            "learned; raise it",
            flush=True,
        )


def _with_truncation(
    requests: Sequence[RolloutRequest], size: int, share: float
) -> list[RolloutRequest]:
    """Return the requests with `share` of each group, at least one, marked for truncation."""
    count = max(round(share * size), 1)
    return [
        dataclasses.replace(request, truncated=index % size < count)
        for index, request in enumerate(requests)
    ]
