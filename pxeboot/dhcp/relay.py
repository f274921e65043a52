"""How a request came to us: straight from its client, or through a relay that says where the client is."""

from dataclasses import dataclass
from ipaddress import IPv4Address

from pxeboot.dhcp import options
from pxeboot.dhcp.options import decode_options
from pxeboot.dhcp.packet import Packet, value_of
from pxeboot.dhcp.values import decode_address
from pxeboot.errors import MalformedPacket

RELAY_PORT = 67

# Sub-options of 82.
LINK_SELECTION = 5  # RFC 3527
SERVER_IDENTIFIER_OVERRIDE = 11  # RFC 5107
RELAY_SOURCE_PORT = 19  # RFC 8357 §5.1: in DHCPv4 it is empty

_NOWHERE = IPv4Address(0)


@dataclass(frozen=True, slots=True)
class Way:
    """Where the client is, as the request tells it."""

    place: IPv4Address | None = None
    """An address of the client's subnet; None: it is on the link that the request came by."""
    identifier: IPv4Address | None = None
    """What the relay wants the client to hear as our address, so that renewals go through it as well."""
    port: int = RELAY_PORT
    """Where the relay listens."""


_STRAIGHT = Way()


def way_of(request: Packet, source_port: int) -> Way:
    """Read giaddr and options 118 and 82. `source_port` is the UDP port the request was sent from.

    The subnet is named by 82.5, else by 118 (RFC 3527 §3: the relay overrules the client), else by giaddr.
    Without giaddr 82 comes from no relay that a reply could be sent to, and is only echoed.
    """
    if request.giaddr == _NOWHERE and options.SUBNET_SELECTION.code not in request.options:
        return _STRAIGHT
    selected = value_of(request, options.SUBNET_SELECTION)
    place = selected if isinstance(selected, IPv4Address) else None
    if request.giaddr == _NOWHERE:
        return Way(place)
    told = _relay_information(request)
    return Way(
        _address(told, LINK_SELECTION) or place or request.giaddr,
        _address(told, SERVER_IDENTIFIER_OVERRIDE),
        source_port if RELAY_SOURCE_PORT in told else RELAY_PORT,
    )


def _relay_information(request: Packet) -> dict[int, bytes]:
    try:
        return decode_options(request.options.get(options.RELAY_AGENT_INFORMATION.code, b""))
    except MalformedPacket:
        return {}  # it is echoed all the same: only the relay has to understand it


def _address(told: dict[int, bytes], code: int) -> IPv4Address | None:
    raw = told.get(code)
    if raw is None:
        return None
    try:
        address = decode_address(raw)
    except ValueError:
        return None
    return None if address == _NOWHERE else address
