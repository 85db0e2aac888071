"""Turns probes into requests to the engine, and their deltas into answers."""

from collections.abc import Sequence

from stepgrpo_core.control.probing import Probe, read_answer
from stepgrpo_core.errors import InvalidSetting
from stepgrpo_core.policies import Answer, ExitSettings, ProbeSpec
from training.rollouts.types import Delta, Format, Request, Sampling

__all__ = ["answer_of", "check_judge", "probe_request"]


def check_judge(settings: ExitSettings) -> None:
    """Raise InvalidSetting for a judge on another server, which rollouts cannot use."""
    if settings.verifier_url is not None:
        remedy = "rollouts ask no other server: leave it out, and the model judges itself"
        raise InvalidSetting("verifier_url", settings.verifier_url, remedy)


def probe_request(name: str, probe: Probe) -> Request:
    """Return a probe as a request with the id `name`."""
    sampling = Sampling(probe.max_tokens, 0.0, stop_token_ids=probe.stop_ids, logprobs=probe.top)
    return Request(name, probe.prompt_ids, sampling)


def answer_of(spec: ProbeSpec, deltas: Sequence[Delta], form: Format) -> Answer | None:
    """Return the answer in a probe's deltas; None if it failed or requested data is missing."""
    if deltas[-1].cause not in ("eos", "length"):
        return None
    ids = [token for delta in deltas for token in delta.ids]
    logprobs = [value for delta in deltas for value in delta.logprobs]
    top = next((delta.top[0] for delta in deltas if delta.top), {})
    return read_answer(spec, ids, logprobs, top, form)
