"""Exit policies: one file each.

How to add one: write a class built from `ExitSettings` with `needs` (where it acts, and what it
asks there) and `decide` (see `ExitPolicy`), state its source, defaults and departures at the top
of its file, and enter it in `POLICIES`; its exit reason is one of `states.BY_POLICY`. The server,
the trainer and the documentation take it from there, alone or joined to others by +. A field that
only it reads goes into `ExitSettings`, with its range. Where it raises or gives another reason, the
sequence thinks on without exits, and the server counts that.
"""

from collections.abc import Callable

from stepgrpo_core.errors import InvalidSetting, PolicyFailed
from stepgrpo_core.names import suggest
from stepgrpo_core.policies.base import (
    Boundary,
    BoundaryKind,
    ExitPolicy,
    ExitReason,
    Matcher,
    Needs,
    Verdict,
)
from stepgrpo_core.policies.budget import BudgetPolicy
from stepgrpo_core.policies.confidence import ConfidencePolicy
from stepgrpo_core.policies.consistency import ConsistencyPolicy
from stepgrpo_core.policies.entropy import EntropyPolicy
from stepgrpo_core.policies.margin import MarginPolicy
from stepgrpo_core.policies.none import NonePolicy
from stepgrpo_core.policies.pattern import PatternPolicy
from stepgrpo_core.policies.questions import (
    Answer,
    Distribution,
    Induce,
    Judge,
    NextToken,
    Question,
    Reply,
    Trial,
)
from stepgrpo_core.policies.repetition import RepetitionPolicy
from stepgrpo_core.policies.settings import ExitSettings
from stepgrpo_core.policies.sufficiency import SufficiencyPolicy
from stepgrpo_core.policies.verifier import VerifierPolicy

__all__ = [
    "POLICIES",
    "Answer",
    "Boundary",
    "BoundaryKind",
    "Distribution",
    "ExitPolicy",
    "ExitReason",
    "ExitSettings",
    "Induce",
    "Judge",
    "Matcher",
    "Needs",
    "NextToken",
    "Question",
    "Reply",
    "Trial",
    "Verdict",
    "build_policy",
]

POLICIES: dict[str, Callable[[ExitSettings], ExitPolicy]] = {
    "budget": BudgetPolicy,
    "confidence": ConfidencePolicy,
    "consistency": ConsistencyPolicy,
    "entropy": EntropyPolicy,
    "margin": MarginPolicy,
    "none": NonePolicy,
    "pattern": PatternPolicy,
    "repetition": RepetitionPolicy,
    "sufficiency": SufficiencyPolicy,
    "verifier": VerifierPolicy,
}
"""Exit policies by the name that requests and flags use."""


def build_policy(settings: ExitSettings, matcher: Matcher | None = None) -> tuple[ExitPolicy, ...]:
    """Fresh policies for one sequence, in the order in which `settings.policy` joins them by +.

    Raises InvalidSetting for a name that is unknown, repeated, or joined to ``none``, and for
    settings with which a policy could never act; PolicyFailed for a policy that raises anything
    else. `matcher` is what ``pattern`` looks for.
    """
    names = settings.policy.split("+")
    for place, name in enumerate(names):
        if name not in POLICIES:
            remedy = f"{suggest(name, POLICIES)} (several are joined by +)"
            raise InvalidSetting("policy", settings.policy, remedy)
        if name in names[:place]:
            raise InvalidSetting("policy", settings.policy, f"name {name!r} once")
    if "none" in names and len(names) > 1:
        raise InvalidSetting("policy", settings.policy, "'none' stands alone; leave it out")
    return tuple(_built(name, settings, matcher) for name in names)


def _built(name: str, settings: ExitSettings, matcher: Matcher | None) -> ExitPolicy:
    try:
        if name == "pattern":  # the one that is made from more than settings
            policy: ExitPolicy = PatternPolicy(settings, matcher)
        else:
            policy = POLICIES[name](settings)
        _ = policy.needs
    except InvalidSetting:
        raise
    except Exception as error:
        raise PolicyFailed(f"policy {name} cannot be built: {type(error).__name__}") from error
    return policy
