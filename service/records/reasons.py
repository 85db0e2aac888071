"""Closed sets of reasons, used in responses, in logs, and as metric labels."""

import enum

__all__ = ["OBSTACLES", "Abstained", "Refusal"]


class Abstained(enum.StrEnum):
    """Reason why a policy does not act, or acts only in part. Shown in responses and metrics."""

    NO_THINKING_TOKENS = "no_thinking_tokens"
    """The model's thinking format is unknown, so its thinking is neither counted nor ended."""
    COUNTS_ONLY = "counts_only"
    """Thinking of this model family is only counted, because it cannot be closed safely."""
    NO_TOKEN_IDS = "no_token_ids"  # noqa: S105 - no password
    """The prompt consists of embeddings and has no token ids."""
    CUMULATIVE_OUTPUT = "cumulative_output"
    """The caller wants outputs that repeat earlier text. No HTTP route does."""
    CONTINUED_THINKING = "continued_thinking"
    """The prompt ends inside unfinished thinking (continue_final_message), which is the caller's,
    and its earlier steps are unknown. It is counted, and its exit_reason is none."""
    IGNORE_EOS = "ignore_eos"
    """The request wants an exact number of tokens."""
    PROMPT_LOGPROBS = "prompt_logprobs"
    """The prompt is scored (echo with log-probs), not answered."""
    GRAMMAR = "grammar"
    """A grammar or schema constrains the output from its first token. A grammar that applies only
    to the answer is no obstacle."""
    NO_PREFIX_CACHING = "no_prefix_caching"
    """[policies that probe] Without prefix caching, each probe would recompute its prefix."""
    TOOLS = "tools"
    """[policies that probe for an answer] The request offers tools, so the reply may be a tool
    call, about which a probe's answer says nothing. Requests that name their policy themselves, or
    that set ``tool_choice`` to none, are not affected. With ``--exit-with-tools``, policies act on
    the thinking before the call."""
    UNCALIBRATED = "uncalibrated"
    """[policies with a threshold] The thresholds of ``--exit-thresholds`` were calibrated with
    another sampling or for another model. Requests that set their policy or a threshold themselves
    are not affected."""
    SWITCHED_OFF = "switched_off"
    """The quality gate switched the policy off because its exits changed too many answers."""
    POLICY_ERROR = "policy_error"
    """The policy raised an exception: a bug in it. The thinking continued without exits."""


OBSTACLES = {
    Abstained.NO_THINKING_TOKENS: "how this model writes thinking is not known",
    Abstained.COUNTS_ONLY: "thinking of this model's family is only counted",
    Abstained.NO_TOKEN_IDS: "the prompt is not made of tokens",
    Abstained.CUMULATIVE_OUTPUT: "outputs are cumulative",
    Abstained.CONTINUED_THINKING: "the prompt ends inside a thought; let it end before",
    Abstained.IGNORE_EOS: "ignore_eos is set; leave it out",
    Abstained.PROMPT_LOGPROBS: "the prompt is scored; leave prompt_logprobs out",
    Abstained.GRAMMAR: "a grammar forms the output from its first token on",
}
"""Reasons why a requested limit cannot be enforced."""


class Refusal(enum.StrEnum):
    """Reason why a probe was not sent. Used as a metric label."""

    QUEUE = "queue"
    """A request waits for a place in the batch, or would wait because of this probe."""
    LOAD = "load"
    """Probes already use their share of the running sequences."""
