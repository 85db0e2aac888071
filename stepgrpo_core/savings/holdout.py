"""Assignment of conversations to the control arm, which is served without exits, or to treatment.

A keyed hash of the conversation decides: a conversation is always in the same arm, in every process
that has the key, and nobody without the key can predict or choose its arm. The same hash assigns
conversations to random groups, whose spread gives every interval (see `estimators`).
"""

import hashlib
from dataclasses import dataclass

from stepgrpo_core.errors import InvalidSetting

__all__ = ["GROUPS", "Arm", "Holdout"]

GROUPS = 64
"""Number of random groups: enough for Student's t to be close to the normal distribution, few
enough to store for every model and policy."""


@dataclass(frozen=True, slots=True)
class Arm:
    """Experiment arm and random group of a conversation."""

    control: bool
    """The conversation is served without exits."""
    group: int
    """Random group, 0 to `GROUPS` - 1, independent of `control`."""


@dataclass(frozen=True, slots=True)
class Holdout:
    """Assigns conversations to arms; raises InvalidSetting for an invalid share or key."""

    share: float
    """Share of conversations in the control arm, 0 to 1."""
    key: bytes
    """Secret, 16 to 64 bytes. A new key assigns all conversations anew."""

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise InvalidSetting("holdout", self.share, "use a number from 0 to 1")
        if not 16 <= len(self.key) <= hashlib.blake2b.MAX_KEY_SIZE:
            raise InvalidSetting("holdout_key", f"{len(self.key)} bytes", "use 16 to 64 bytes")

    def assign(self, conversation: bytes) -> Arm:
        """Return the arm of `conversation`, always the same."""
        digest = hashlib.blake2b(conversation, digest_size=16, key=self.key).digest()
        drawn = int.from_bytes(digest[:8], "big") / 2**64
        return Arm(control=drawn < self.share, group=int.from_bytes(digest[8:], "big") % GROUPS)
