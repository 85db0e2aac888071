"""`budget`: limit the thinking to a number of tokens or steps (vLLM's `thinking_token_budget`,
NIM's `max_thinking_tokens`; `max_steps` is ours).

After `budget_tokens` the thinking is closed at the next line end, at the latest after 10 % more, so
that lines are kept whole if possible (vLLM PR 45727). After `max_steps` it is closed before the
marker of the next step. Neither is set by default.

With `budget_leaves_answer` the budget, its 10 % included, always leaves `answer_reserve` tokens of
the limit for the answer, so thinking does not use up max_tokens (vllm#15418). Other policies only
refuse an exit that comes too late for an answer; combine them with this one. `min_tokens` does not
delay a budget. The completion keeps at most the tokens that the budget allows; a few more may have
been generated. A budget of 0 closes after the first token.
"""

import math

from stepgrpo_core.policies.base import Boundary, BoundaryKind, ExitReason, Needs, Policy, Verdict
from stepgrpo_core.policies.probes import Answer

__all__ = ["BudgetPolicy"]


class BudgetPolicy(Policy):
    """Exits when the budget is spent."""

    @property
    def needs(self) -> Needs:
        """Request line ends and tokens for a token budget, step markers for `max_steps`."""
        kinds = set()
        if self.settings.budget_tokens is not None or self.settings.budget_leaves_answer:
            kinds |= {BoundaryKind.LINE, BoundaryKind.ANY}
        if self.settings.max_steps is not None:
            kinds.add(BoundaryKind.MARKER)
        return Needs(frozenset(kinds))

    def decide(self, boundary: Boundary, answer: Answer | None) -> Verdict:
        """Exit if a budget is spent."""
        del answer
        if boundary.kind is BoundaryKind.MARKER:
            spent = self._steps_spent(boundary)
        else:
            spent = self._tokens_spent(boundary)
        return Verdict(ExitReason.BUDGET if spent else None)

    def _steps_spent(self, boundary: Boundary) -> bool:
        limit = self.settings.max_steps
        return limit is not None and boundary.steps >= limit

    def _tokens_spent(self, boundary: Boundary) -> bool:
        limits = []
        if self.settings.budget_tokens is not None:
            limits.append(self.settings.budget_tokens)
        reachable = boundary.generated + boundary.room  # reasoning tokens that leave the reserve
        if self.settings.budget_leaves_answer and reachable < math.inf:
            limits.append(int(reachable) * 10 // 11)
        if not limits:
            return False
        soft = min(limits)
        if boundary.kind is BoundaryKind.LINE and boundary.reasoning_tokens >= soft:
            return True
        return boundary.generated >= soft + soft // 10
