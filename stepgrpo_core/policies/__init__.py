"""Exit policies, one per file.

To add a policy, write a class that is built from `ExitSettings` and has `needs` (where it acts, and
its probe) and `decide` (see `ExitPolicy`). State source, defaults and departures at the top of its
file, and add it to `POLICIES`; its exit reason must be in `states.BY_POLICY`. The server, the
trainer and the documentation then know it, alone or joined to others by +. Settings that only this
policy reads go into `ExitSettings`, with their range. If a policy raises or returns another reason,
the sequence continues without exits and the server counts the failure.
"""

from collections.abc import Callable

from stepgrpo_core.errors import InvalidSetting, PolicyFailed
from stepgrpo_core.names import suggest
from stepgrpo_core.plugins import is_own, load_object
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
from stepgrpo_core.policies.give_up import GiveUpPolicy
from stepgrpo_core.policies.margin import MarginPolicy
from stepgrpo_core.policies.none import NonePolicy
from stepgrpo_core.policies.pattern import PatternPolicy
from stepgrpo_core.policies.probes import (
    Answer,
    Distribution,
    Induce,
    InducedAnswer,
    Judge,
    NextToken,
    ProbeSpec,
    Reply,
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
    "InducedAnswer",
    "Judge",
    "Matcher",
    "Needs",
    "NextToken",
    "ProbeSpec",
    "Reply",
    "Verdict",
    "build_policy",
    "load_policies",
]

POLICIES: dict[str, Callable[[ExitSettings], ExitPolicy]] = {
    "budget": BudgetPolicy,
    "confidence": ConfidencePolicy,
    "consistency": ConsistencyPolicy,
    "entropy": EntropyPolicy,
    "give_up": GiveUpPolicy,
    "margin": MarginPolicy,
    "none": NonePolicy,
    "pattern": PatternPolicy,
    "repetition": RepetitionPolicy,
    "sufficiency": SufficiencyPolicy,
    "verifier": VerifierPolicy,
}
"""Exit policies by their name in requests and flags."""


def load_policies(policy: str) -> None:
    """Add the user's own policies among the joined names of `policy` to `POLICIES`.

    Such a name is ``package.module:name`` or an entry point in group ``stepgrpo.policies``. Only
    for names that an operator wrote, since it imports them: requests may then use them, and cannot
    load others. Raises InvalidSetting for a name that leads nowhere.
    """
    for name in policy.split("+"):
        if name not in POLICIES and is_own(name, "policies"):
            wanted = "a class that is built from ExitSettings"
            POLICIES[name] = load_object(name, "policy", callable, wanted, "policies")


def build_policy(settings: ExitSettings, matcher: Matcher | None = None) -> tuple[ExitPolicy, ...]:
    """Return new policies for one sequence, in the order of `settings.policy`.

    `matcher` is the compiled expression of ``pattern``. Raises InvalidSetting for a name that is
    unknown, repeated or joined to ``none``, and for settings with which a policy could never act;
    PolicyFailed for a policy that raises anything else.
    """
    names = settings.policy.split("+")
    for index, name in enumerate(names):
        if name not in POLICIES:
            remedy = f"{suggest(name, POLICIES)} (several are joined by +)"
            raise InvalidSetting("policy", settings.policy, remedy)
        if name in names[:index]:
            raise InvalidSetting("policy", settings.policy, f"name {name!r} once")
    if "none" in names and len(names) > 1:
        raise InvalidSetting("policy", settings.policy, "'none' stands alone; leave it out")
    return tuple(_build(name, settings, matcher) for name in names)


def _build(name: str, settings: ExitSettings, matcher: Matcher | None) -> ExitPolicy:
    try:
        if name == "pattern":  # needs more than settings
            policy: ExitPolicy = PatternPolicy(settings, matcher)
        else:
            policy = POLICIES[name](settings)
        _ = policy.needs
    except InvalidSetting:
        raise
    except Exception as error:
        raise PolicyFailed(f"policy {name} cannot be built: {type(error).__name__}") from error
    return policy
