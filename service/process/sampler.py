"""Log-probs of each request of a batch, whatever the other requests ask for.

As soon as one request has ``logprob_token_ids``, vLLM's V1 sampler (0.31 to 0.33) returns the
log-probs of those ids for the whole batch: every other request gets token 0 at minus infinity in
place of its most probable tokens (vllm#51789). A client of that parameter would so blind the probes
of other clients. The V2 runner, vLLM's default on GPUs, keeps requests apart.
"""

from typing import Any

from vllm.v1.sample.sampler import Sampler

__all__ = ["keep_logprobs_apart"]

_forward = Sampler.forward
_gather = Sampler.gather_specific_token_logprobs


def keep_logprobs_apart() -> None:
    """Make the sampler of this process give each request the log-probs that it asked for."""
    Sampler.forward = forward
    Sampler.gather_specific_token_logprobs = gather_specific_token_logprobs


def forward(self: Any, logits: Any, sampling_metadata: Any, *args: Any, **options: Any) -> Any:
    """Sample as vLLM does, and remember how many of the most probable tokens the batch needs."""
    self.most = sampling_metadata.max_num_logprobs or 0
    return _forward(self, logits, sampling_metadata, *args, **options)


def gather_specific_token_logprobs(
    self: Any, logprobs: Any, logprob_token_ids: dict[int, list[int]], sampled: Any
) -> Any:
    """Gather log-probs of the ids that a row asked for, or of its most probable tokens.

    `logprobs` has the shape (rows, vocabulary) and `logprob_token_ids` ids by row.
    """
    if logprob_token_ids and self.most > 0:
        most_probable = logprobs.topk(self.most, dim=-1).indices.tolist()
        logprob_token_ids = dict(enumerate(most_probable)) | logprob_token_ids
    return _gather(self, logprobs, logprob_token_ids, sampled)
