"""What a lease is: an address promised to a machine until a moment."""

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address

from pxeboot.mac import Mac


class LeaseState(Enum):
    """How far the promise went."""

    OFFERED = "offered"
    """Held for a machine that has not asked for it yet; in memory only."""
    BOUND = "bound"
    """Acknowledged, and on disk before that."""
    RELEASED = "released"
    """Given back; kept so that its machine gets it again."""
    DECLINED = "declined"
    """Found in use by somebody else; given to nobody until it expires."""
    CONFLICT = "conflict"
    """Answered for by `mac`, which we never gave it to; given to nobody else until it expires."""


@dataclass(slots=True)
class Lease:
    """One address of a network and whose it is; `expires` in Unix seconds.

    Nobody changes one. It is not frozen because one is made for each ACK, and that would take a microsecond
    instead of a quarter of it.
    """

    address: IPv4Address
    mac: Mac
    state: LeaseState
    expires: float

    def active(self, now: float) -> bool:
        """Whether the address is promised to `mac` at this moment."""
        return self.state in (LeaseState.OFFERED, LeaseState.BOUND) and now < self.expires

    def quarantined(self, now: float) -> bool:
        """Whether the address is out of use because somebody has it without a lease."""
        return self.state in (LeaseState.DECLINED, LeaseState.CONFLICT) and now < self.expires

    def free_for(self, mac: Mac, now: float) -> bool:
        """Whether the address may be given to this machine."""
        if self.state is LeaseState.DECLINED:
            return now >= self.expires
        if self.state is LeaseState.CONFLICT:
            return self.mac == mac or now >= self.expires
        return self.mac == mac or not self.active(now)
