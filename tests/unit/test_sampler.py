"""Each row of a batch gets the log-probs that it asked for, from vLLM's own sampler."""

import multiprocessing
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

import pytest
import torch
from vllm.v1.sample.logits_processor import LogitsProcessors
from vllm.v1.sample.metadata import SamplingMetadata
from vllm.v1.sample.sampler import Sampler

from service.process import die_with_parent
from service.process.sampler import forward, keep_logprobs_apart

LOGITS = torch.tensor(
    [[0.0, 3.0, 2.0, 1.0, 0.5], [4.0, 0.0, 1.0, 2.0, 3.0], [1.0, 2.0, 5.0, 4.0, 3]]
)
LOGPROBS = LOGITS.log_softmax(dim=-1)


@pytest.fixture(autouse=True)
def apart(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("forward", "gather_specific_token_logprobs"):
        monkeypatch.setattr(Sampler, name, getattr(Sampler, name))  # restores it
    keep_logprobs_apart()
    with torch.compiler.set_stance("force_eager"):  # compiling takes longer than the tests
        yield


def rows(most: int | None, wanted: dict[int, list[int]] | None) -> list[dict[int, float]]:
    """Sample greedily and return the log-probs of each row by token, as many as it asked for."""
    nothing = torch.zeros(3)
    metadata = SamplingMetadata(
        temperature=None,
        all_greedy=True,
        all_random=False,
        top_p=None,
        top_k=None,
        generators={},
        max_num_logprobs=most,
        no_penalties=True,
        prompt_token_ids=None,
        frequency_penalties=nothing,
        presence_penalties=nothing,
        repetition_penalties=nothing,
        output_token_ids=[[], [], []],
        allowed_token_ids_mask=None,
        bad_words_token_ids={},
        logitsprocs=LogitsProcessors(),
        logprob_token_ids=wanted,
    )
    sampler = Sampler()
    sampler.pin_memory = False  # without an accelerator
    found: Any = sampler(LOGITS.clone(), metadata).logprobs_tensors
    asked = [1 + len((wanted or {}).get(row, range(most or 0))) for row in range(3)]
    return [
        dict(zip(ids[:count].tolist(), values.tolist(), strict=False))
        for ids, values, count in zip(found.logprob_token_ids, found.logprobs, asked, strict=True)
    ]


def logprobs(row: int, *tokens: int) -> Any:
    return pytest.approx({token: LOGPROBS[row, token].item() for token in tokens})


@pytest.mark.parametrize("ids", [[3], [3, 4, 0, 1]], ids=["fewer", "more"])
def test_the_others_keep_their_most_probable_tokens(ids: list[int]) -> None:
    first, second, third = rows(2, {1: ids})
    assert first == logprobs(0, 1, 2)
    assert second == logprobs(1, 0, *ids)
    assert third == logprobs(2, 2, 3)


def test_nobody_else_asks() -> None:
    _, second, _ = rows(None, {1: [3, 4]})
    assert second == logprobs(1, 0, 3, 4)


def test_nobody_asks_for_ids() -> None:
    assert rows(2, None) == [
        logprobs(0, 1, 2),
        logprobs(1, 0, 4),
        logprobs(2, 2, 3),
    ]


def tell_sampler(told: Connection) -> None:
    told.send(Sampler.forward is forward)


def start_engine(told: Connection) -> None:
    """Enter a process of the engine as vLLM does."""
    Sampler.forward = object()
    die_with_parent.end_engine_with_server()
    die_with_parent._originals["engine"] = tell_sampler
    die_with_parent.run_engine_core(told)


def test_every_process_of_the_engine_has_this_sampler() -> None:
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe()
    engine = fork.Process(target=start_engine, args=(there,))
    engine.start()
    there.close()
    assert here.recv() is True
    engine.join()
