"""Closed sets of reasons, used in responses, logs and as labels of metrics."""

import enum

__all__ = ["OBSTACLES", "Abstained", "Refusal"]


class Abstained(enum.StrEnum):
    """Why a policy does not act, or only in parts: a closed set, in responses and metrics."""

    NO_THINKING_TOKENS = "no_thinking_tokens"
    """How the model writes thinking is not known: it is neither counted nor ended."""
    COUNTS_ONLY = "counts_only"
    """Thinking of the model's family is only counted: it cannot be closed safely."""
    NO_TOKEN_IDS = "no_token_ids"  # noqa: S105 - no password
    """The prompt has no token ids: embeddings."""
    CUMULATIVE_OUTPUT = "cumulative_output"
    """The caller wants outputs that repeat what came before; no HTTP route does."""
    CONTINUED_THINKING = "continued_thinking"
    """The prompt ends inside a thought that has begun (continue_final_message): it is the
    caller's, and where its steps began is unknown. It is counted, its exit_reason is none."""
    IGNORE_EOS = "ignore_eos"
    """Exactly so many tokens are wanted."""
    PROMPT_LOGPROBS = "prompt_logprobs"
    """A prompt is being scored (echo with log-probs), not answered."""
    GRAMMAR = "grammar"
    """The output follows a grammar or a schema from its first token on; one that waits for the
    answer is no obstacle."""
    NO_PREFIX_CACHING = "no_prefix_caching"
    """[policies that ask] Every question would cost its whole prefix again."""
    TOOLS = "tools"
    """[policies that ask for an answer] Tools are offered, so what follows may be a call, and a
    trial answer says nothing about it. A request that names its policy itself is taken at its
    word, and one with ``tool_choice`` none is not concerned. With ``--exit-with-tools`` policies
    act all the same, on the thinking before the call."""
    SWITCHED_OFF = "switched_off"
    """The quality guard has switched the policy off: its exits changed too many answers."""
    POLICY_ERROR = "policy_error"
    """The policy failed: a bug in it. The thinking ran on without exits."""


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
"""Why nothing can hold a bound."""


class Refusal(enum.StrEnum):
    """Why a probe was not put: a closed set, used as a metric's label."""

    QUEUE = "queue"
    """A request waits for a place in the batch, or would have to wait for this probe's."""
    LOAD = "load"
    """Probes have their share of the running sequences."""
