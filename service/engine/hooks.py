"""`EngineHooks`: where the measurement of savings follows requests through the engine client.

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
        """Called once, when the engine has proved that it generates. `name` is the model's."""

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
        """Called with a request as it came, before its arm changes it."""

    def as_control(
        self, request: EngineRequest, settings: ExitSettings
    ) -> tuple[EngineRequest, ExitSettings]:
        """Return what a request of the control arm is served with."""
        return request, settings

    def prepare(
        self, records: Sequence[SequenceRecord], conversation: bytes | None, *, exits: bool
    ) -> None:
        """Called before a request runs; `exits` says whether a policy acts on it."""

    def trust(self, model: str, policy: str) -> Trust:
        """Return how far predictions for `model` under `policy` can be trusted."""
        del model, policy
        return Trust()

    def ended(
        self, request: EngineRequest, record: SequenceRecord, baseline: Baseline | None
    ) -> None:
        """Called once for every sequence, however it ended."""

    def warnings(self) -> list[str]:
        """Return what an operator should know although the server is ready."""
        return []

    async def stop(self) -> None:
        """Called when the engine shuts down."""
