"""An engine client without a model: plays token streams in steps, as vLLM's output handler does.

One step puts one token into the collector of every running request (vLLM's own
`RequestOutputCollector`) and then lets their readers run. Only the work of the API process remains,
so the cost of a wrapper around it is measured without the noise of an engine.
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from vllm.logprobs import Logprob
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.v1.engine.output_processor import RequestOutputCollector
from vllm.v1.metrics.stats import RequestStateStats

__all__ = ["ScriptedClient"]

TRIAL_LOGPROB = -0.7  # log-probs of every trial token: a confidence of 0.5, which is declined


@dataclass(slots=True)
class _Playing:
    collector: RequestOutputCollector
    ids: Sequence[int]
    texts: Sequence[str]
    params: SamplingParams
    done: int = 0
    stats: RequestStateStats = field(default_factory=RequestStateStats)


@dataclass(slots=True)
class ScriptedClient:
    """A replacement for vLLM's engine client.

    Every request plays `ids` with their `texts`; a request for log-probs is treated as a trial and
    plays `trial`.
    """

    tokenizer: Any
    ids: Sequence[int]
    texts: Sequence[str]
    trial: Sequence[int]
    playing: dict[str, _Playing] = field(default_factory=dict)
    _task: asyncio.Task[None] | None = None

    @property
    def renderer(self) -> Any:
        """Return the object in which the wrapper finds the tokenizer."""
        return SimpleNamespace(tokenizer=self.tokenizer)

    @property
    def vllm_config(self) -> Any:
        """Return the part of vLLM's configuration that the wrapper reads."""
        return SimpleNamespace(
            cache_config=SimpleNamespace(enable_prefix_caching=True),
            lora_config=None,
            parallel_config=SimpleNamespace(data_parallel_size=1),
            scheduler_config=SimpleNamespace(
                max_num_queued_reqs=None,
                max_num_queued_tokens=None,
                max_num_seqs=sys.maxsize,
                policy="fcfs",
            ),
            structured_outputs_config=SimpleNamespace(
                reasoning_parser="", enable_in_reasoning=False
            ),
        )

    @property
    def model_config(self) -> Any:
        """Return the part of the model configuration that the wrapper reads."""
        return SimpleNamespace(served_model_name="scripted", max_model_len=sys.maxsize)

    def check_admission(self, n: int = 1, request_id: str | None = None) -> None:
        """Admit every request."""

    async def abort(self, request_id: str) -> None:
        """End a request; outputs already queued are still delivered."""
        if request_id in self.playing:
            each = self.playing.pop(request_id)
            each.collector.put(_output(each, request_id, finish_reason="abort"))

    async def generate(
        self, prompt: Mapping[str, Any], params: SamplingParams, request_id: str, **_: Any
    ) -> AsyncGenerator[RequestOutput, None]:
        """Yield the outputs of one request, read from its collector as vLLM reads them."""
        del prompt
        collector = RequestOutputCollector(RequestOutputKind.DELTA, request_id)
        trial = params.logprobs is not None
        ids = self.trial if trial else self.ids
        texts = [""] * len(ids) if trial else self.texts
        self.playing[request_id] = _Playing(collector, ids, texts, params)
        if self._task is None:
            self._task = asyncio.create_task(self._play())
        finished = False
        while not finished:
            output = collector.get_nowait() or await collector.get()
            assert isinstance(output, RequestOutput)
            finished = output.finished
            yield output

    async def close(self) -> None:
        """Stop playing."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _play(self) -> None:
        while True:
            for request_id, each in list(self.playing.items()):
                self._step(request_id, each)
            await asyncio.sleep(0)

    def _step(self, request_id: str, each: _Playing) -> None:
        token, text = each.ids[each.done], each.texts[each.done]
        each.done += 1
        each.stats.num_generation_tokens += 1
        last = each.done == len(each.ids)
        logprobs = None if each.params.logprobs is None else [{token: Logprob(TRIAL_LOGPROB)}]
        finish = "stop" if last else None
        made = _output(each, request_id, [token], text, finish_reason=finish, logprobs=logprobs)
        each.collector.put(made)
        if last:
            del self.playing[request_id]


def _output(
    each: _Playing,
    request_id: str,
    ids: Sequence[int] = (),
    text: str = "",
    *,
    finish_reason: str | None = None,
    logprobs: Any = None,
) -> RequestOutput:
    completion = CompletionOutput(
        index=0,
        text=text,
        token_ids=list(ids),
        cumulative_logprob=None,
        logprobs=logprobs,
        finish_reason=finish_reason,
    )
    return RequestOutput(
        request_id=request_id,
        prompt=None,
        prompt_token_ids=None,
        prompt_logprobs=None,
        outputs=[completion],
        finished=finish_reason is not None,
        metrics=each.stats,
    )
