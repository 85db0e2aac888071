"""Where an exit could not work or a question would mean nothing, the policy abstains and says why.

Some reasons concern the whole policy. Others concern the parts that ask: of
``confidence+budget`` the budget stays.
"""

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stepgrpo_core import ExitSettings, build_policy
from stepgrpo_core.policies import Induce, Judge, Question

__all__ = ["OBSTACLES", "Abstained", "Facts", "eligible", "offers_tools", "questions_of"]


class Abstained(enum.StrEnum):
    """Why a policy does not act, or only in parts: a closed set, in responses and metrics."""

    NO_THINKING_TOKENS = "no_thinking_tokens"
    """The model is of no known family: no tokens start and end its thinking."""
    COUNTS_ONLY = "counts_only"
    """Thinking of the model's family is only counted: it cannot be closed safely."""
    NO_TOKEN_IDS = "no_token_ids"  # noqa: S105 - no password
    """The prompt has no token ids: embeddings."""
    CUMULATIVE_OUTPUT = "cumulative_output"
    """The caller wants outputs that repeat what came before; no HTTP route does."""
    CONTINUED_THINKING = "continued_thinking"
    """The prompt ends inside a thought that has begun (continue_final_message): it is the
    caller's, and where its steps began is unknown. It is counted."""
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
    Abstained.NO_THINKING_TOKENS: "the model has no known thinking tokens",
    Abstained.COUNTS_ONLY: "thinking of this model's family is only counted",
    Abstained.NO_TOKEN_IDS: "the prompt is not made of tokens",
    Abstained.CUMULATIVE_OUTPUT: "outputs are cumulative",
    Abstained.CONTINUED_THINKING: "the prompt ends inside a thought; let it end before",
    Abstained.IGNORE_EOS: "ignore_eos is set; leave it out",
    Abstained.PROMPT_LOGPROBS: "the prompt is scored; leave prompt_logprobs out",
    Abstained.GRAMMAR: "a grammar forms the output from its first token on",
}
"""Why nothing can hold a bound."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a request and its server."""

    thinks: bool = True
    closes: bool = True
    has_ids: bool = True
    cumulative: bool = False
    continues_thought: bool = False
    ignore_eos: bool = False
    prompt_logprobs: bool = False
    grammar: bool = False
    prefix_caching: bool = True
    tools: bool = False
    """Offered, by a request that names no policy, on a server without ``--exit-with-tools``."""


def eligible(
    questions: Mapping[str, Question | None], facts: Facts
) -> tuple[str, Abstained | None]:
    """The policy that acts, of those whose `questions` are given by name, and why not all do."""
    if list(questions) == ["none"]:
        return "none", None
    whole = (
        (not facts.thinks, Abstained.NO_THINKING_TOKENS),
        (not facts.closes, Abstained.COUNTS_ONLY),
        (not facts.has_ids, Abstained.NO_TOKEN_IDS),
        (facts.cumulative, Abstained.CUMULATIVE_OUTPUT),
        (facts.continues_thought, Abstained.CONTINUED_THINKING),
        (facts.ignore_eos, Abstained.IGNORE_EOS),
        (facts.prompt_logprobs, Abstained.PROMPT_LOGPROBS),
        (facts.grammar, Abstained.GRAMMAR),
    )
    for applies, reason in whole:
        if applies:
            return "none", reason
    if not facts.prefix_caching:
        left = [name for name, question in questions.items() if not _costs_its_prefix(question)]
        if len(left) < len(questions):
            return "+".join(left) or "none", Abstained.NO_PREFIX_CACHING
    if facts.tools:
        left = [name for name, asked in questions.items() if not isinstance(asked, Induce | Judge)]
        if len(left) < len(questions):
            return "+".join(left) or "none", Abstained.TOOLS
    return "+".join(questions), None


def _costs_its_prefix(question: Question | None) -> bool:
    elsewhere = isinstance(question, Judge) and question.url is not None
    return question is not None and not elsewhere


def questions_of(settings: ExitSettings) -> dict[str, Question | None]:
    """What each policy that `settings` join asks, by its name; None asks nothing."""
    policies = build_policy(settings, re.compile("(?!)"))  # none of them is used
    names = settings.policy.split("+")
    return {name: each.needs.question for name, each in zip(names, policies, strict=True)}


def offers_tools(body: Mapping[str, Any]) -> bool:
    """Whether a request body offers tools that its answer may call."""
    choice = body.get("tool_choice")
    kind = choice.get("type") if isinstance(choice, Mapping) else choice  # Anthropic's is a mapping
    return bool(body.get("tools")) and kind != "none"
