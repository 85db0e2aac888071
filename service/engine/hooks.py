"""`EngineHooks`: the interface by which the measurement of savings follows requests.

The engine client calls every hook; this base class does nothing. `service.savings.measurement`
overrides the hooks, so `engine` never imports `savings`.
"""

from collections.abc import Sequence

from service.engine.policy_resolver import PolicyResolver
from service.engine.request import EngineRequest, ServedModel
from service.params import Effective
from service.records.metrics import Metrics
from service.records.sequence import SequenceRecord
from service.records.trust import Trust
from stepgrpo_core import Baseline, ExitSettings
from stepgrpo_core.savings.holdout import Arm

__all__ = ["EngineHooks"]


class EngineHooks:
    """Hooks of the engine client, in the order in which it calls them; each does nothing."""

    makes_pairs: bool = False
    """Truncated reasoning is continued in the background to measure what exits saved."""

    def start(
        self, served: ServedModel, metrics: Metrics, name: str, resolver: PolicyResolver
    ) -> None:
        """Start measuring; called once, after the readiness check. `name` is the model's."""

    def is_off(self, model: str, policy: str) -> bool:
        """Return whether `policy` is switched off for `model`."""
        del model, policy
        return False

    def assign_arm(
        self, request: EngineRequest, effective: Effective, conversation: bytes | None
    ) -> Arm | None:
        """Return the experiment arm of a request, or None if it is not eligible."""
        del request, effective, conversation
        return None

    def assign_stratum(self, request: EngineRequest, records: Sequence[SequenceRecord]) -> None:
        """Set the stratum of a request; called before its arm changes it."""

    def as_control(
        self, request: EngineRequest, settings: ExitSettings
    ) -> tuple[EngineRequest, ExitSettings]:
        """Return the request and settings that serve it in the control arm."""
        return request, settings

    def prepare(
        self, records: Sequence[SequenceRecord], conversation: bytes | None, *, exits: bool
    ) -> None:
        """Prepare the records of a request before it runs; `exits`: a policy acts on it."""

    def trust(self, model: str, policy: str) -> Trust:
        """Return the trust in predictions for `model` under `policy`."""
        del model, policy
        return Trust()

    def ended(
        self, request: EngineRequest, record: SequenceRecord, baseline: Baseline | None
    ) -> None:
        """Record the end of a sequence, whatever its cause; called once for each."""

    def warnings(self) -> list[str]:
        """Return warnings of a ready server for the operator."""
        return []

    async def stop(self) -> None:
        """Stop measuring when the engine shuts down."""
