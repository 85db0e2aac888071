"""Which conversations are served without exits, so that exits can be compared with something.

A keyed hash of the conversation decides: the same conversation always lands on the same side, in
every process that has the key, and nobody without it can tell the side or steer it. The same hash
deals conversations into random groups, whose spread gives every interval (see `fleet`).
"""

import hashlib
from dataclasses import dataclass

from stepgrpo_core.errors import InvalidSetting

__all__ = ["GROUPS", "Arm", "Holdout"]

GROUPS = 64
"""Random groups: enough for Student's t to be near the normal, few enough to store for every
model and policy."""


@dataclass(frozen=True, slots=True)
class Arm:
    """Where a conversation landed."""

    held: bool
    """Served without exits."""
    group: int
    """Random group, 0 to `GROUPS` - 1, independent of `held`."""


@dataclass(frozen=True, slots=True)
class Holdout:
    """Deals conversations; raises InvalidSetting for a share or a key that cannot work."""

    share: float
    """Of conversations that are held out, 0 to 1."""
    key: bytes
    """Secret; 16 to 64 bytes. Another key deals anew."""

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise InvalidSetting("holdout", self.share, "use a number from 0 to 1")
        if not 16 <= len(self.key) <= hashlib.blake2b.MAX_KEY_SIZE:
            raise InvalidSetting("holdout_key", f"{len(self.key)} bytes", "use 16 to 64 bytes")

    def place(self, conversation: bytes) -> Arm:
        """Where `conversation` lands, always the same."""
        digest = hashlib.blake2b(conversation, digest_size=16, key=self.key).digest()
        drawn = int.from_bytes(digest[:8], "big") / 2**64
        return Arm(held=drawn < self.share, group=int.from_bytes(digest[8:], "big") % GROUPS)
