"""Who answers when: RFC 2131 §4.3.2 and table 4, for a server that may not be the only one."""

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address

from pxeboot.dhcp import options
from pxeboot.dhcp.packet import Packet, value_of

_NOWHERE = IPv4Address(0)


class Asks(Enum):
    """What a REQUEST is (RFC 2131 §4.3.2, table 4)."""

    SELECTING = "selecting"
    """It takes our offer."""
    ELSEWHERE = "elsewhere"
    """It takes another server's offer."""
    REBOOTING = "init-reboot"
    """It remembers an address and asks whether that still holds."""
    RENEWING = "renewing"
    """It has the address and wants it for longer. Rebinding differs only in being broadcast."""
    UNCLEAR = "unclear"


def classify(request: Packet, server: IPv4Address) -> tuple[Asks, IPv4Address]:
    """What a REQUEST asks, and for which address (0.0.0.0 where ELSEWHERE or UNCLEAR)."""
    chosen = value_of(request, options.SERVER_IDENTIFIER)
    wanted = value_of(request, options.REQUESTED_ADDRESS)
    if chosen is not None:
        if chosen != server:
            return Asks.ELSEWHERE, _NOWHERE
        address = wanted if isinstance(wanted, IPv4Address) else request.ciaddr
        return (Asks.SELECTING, address) if address != _NOWHERE else (Asks.UNCLEAR, _NOWHERE)
    if request.ciaddr != _NOWHERE:
        return Asks.RENEWING, request.ciaddr
    if isinstance(wanted, IPv4Address) and wanted != _NOWHERE:
        return Asks.REBOOTING, wanted
    return Asks.UNCLEAR, _NOWHERE


@dataclass(frozen=True, slots=True)
class Standing:
    """What we know of the machine and the address in a REQUEST."""

    here: bool
    """The address is of the network that the machine is in."""
    known: bool
    """We have, or had, a lease or a reservation for this machine in this network."""
    ours: bool
    """The address is of a pool of ours, in whichever network: nobody else gives it."""
    authoritative: bool
    """The operator says that in this network nobody else gives addresses at all."""
    outdated: bool = False
    """It had the address for as long as nobody had named it, and now it has been named."""


class Verdict(Enum):
    """What becomes of a REQUEST."""

    TRY = "try"
    """ACK if the store can give the address, else NAK."""
    NAK = "nak"
    SILENCE = "silence"
    """Another server may know better."""


def judge(asks: Asks, standing: Standing) -> Verdict:
    """Whether we answer a SELECTING, REBOOTING or RENEWING, and whether we contradict.

    A NAK for an address or a machine that is another server's takes a working machine off the network, so
    silence is the rule where we know nothing of either. Who is refused by nobody asks anew by itself.
    """
    if asks is not Asks.SELECTING:
        if standing.outdated:
            return Verdict.NAK
        mine = standing.known or standing.authoritative
        # An INIT-REBOOT without our record is left to who has one (RFC 2131 §4.3.2), even if we could give
        # the address. A renewal only comes to who gave it: our record of it is lost, and it may go on.
        if not mine and (not standing.ours or (asks is Asks.REBOOTING and standing.here)):
            return Verdict.SILENCE
    return Verdict.TRY if standing.here else Verdict.NAK
