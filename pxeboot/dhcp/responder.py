"""From a request to its reply and where that goes: RFC 2131 §4.3 as pure functions."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from pxeboot.dhcp import options
from pxeboot.dhcp.bootfile import boot_options, pxe_suboptions, with_bootfile
from pxeboot.dhcp.options import MessageType, read
from pxeboot.dhcp.packet import BOOTREPLY, BROADCAST_FLAG, Packet, encode, value_of
from pxeboot.dhcp.relay import RELAY_PORT
from pxeboot.dhcp.terms import Terms
from pxeboot.errors import MalformedPacket
from pxeboot.mac import Mac
from pxeboot.pxe.client import Client
from pxeboot.pxe.policy import Decision

SERVER_PORT, CLIENT_PORT = 67, 68
DEFAULT_MESSAGE_BYTES = 576
"""What every client takes (RFC 2131 §2): the IP datagram, 28 bytes of headers included."""
MAX_MESSAGE_BYTES = 1500
"""What Ethernet carries whole. OVMF's REQUEST says 65280, yet EDK2's buffer for an offer has 1472."""
IP_UDP_BYTES = 28
HEADER_BYTES = 241
"""Of a packet without options: the fields of BOOTP, the magic cookie and END."""

HOST_NAME = options.HOST_NAME.code
ECHOED = (
    options.CLIENT_MACHINE_IDENTIFIER.code,  # RFC 4578 §2.3
    options.CLIENT_IDENTIFIER.code,  # RFC 6842
    options.SUBNET_SELECTION.code,  # RFC 3011 §2
    options.RELAY_AGENT_INFORMATION.code,  # RFC 3046 §2.2 wants it last
)
_NOWHERE = IPv4Address(0)


@dataclass(frozen=True, slots=True)
class Broadcast:
    """To 255.255.255.255, port 68, on the network's interface."""


@dataclass(frozen=True, slots=True)
class Direct:
    """To a client that has no address yet: by hardware address, without ARP."""

    mac: Mac
    address: IPv4Address


@dataclass(frozen=True, slots=True)
class Unicast:
    """To an address that answers ARP: a client that has its lease, or a relay."""

    address: IPv4Address
    port: int


Destination = Broadcast | Direct | Unicast
_TO_ALL = Broadcast()


@dataclass(frozen=True, slots=True)
class Reply:
    """A packet and where it goes."""

    packet: Packet
    destination: Destination

    @property
    def payload(self) -> bytes:
        """The packet as it goes on the wire."""
        return encode(self.packet)


def offer(
    request: Packet, client: Client, terms: Terms, address: IPv4Address, decision: Decision, name: str
) -> Reply:
    """OFFER of an address, with what to boot."""
    return _grant(MessageType.OFFER, request, client, terms, address, decision, name)


def ack(
    request: Packet, client: Client, terms: Terms, address: IPv4Address, decision: Decision, name: str
) -> Reply:
    """ACK of an address. Only to be sent when its lease is on disk."""
    return _grant(MessageType.ACK, request, client, terms, address, decision, name)


def inform_ack(request: Packet, client: Client, terms: Terms, decision: Decision, name: str) -> Reply:
    """Answer to INFORM: everything but an address and its times (RFC 2131 §4.3.5)."""
    given = _given(request, client, terms, decision, name)
    packet = reply_frame(MessageType.ACK, request, terms.identifier, given)
    return Reply(
        with_bootfile(packet, terms.server, decision), destination(request, _NOWHERE, terms.relay_port)
    )


def nak(request: Packet, terms: Terms, reason: str) -> Reply:
    """Tell a client to forget its address and begin again: by broadcast where it can hear one.

    RFC 2131 §4.1 wants a broadcast whenever giaddr is 0. But a client that renews from behind a router
    (giaddr 0, and an address that is not on our link) hears no broadcast of ours, and would keep a wrong
    address until it rebinds through its relay. It has that address, or it could not ask: it is told there.
    """
    given = {options.MESSAGE.code: options.MESSAGE.encode(reason)}
    packet = replace(reply_frame(MessageType.NAK, request, terms.identifier, given), ciaddr=_NOWHERE)
    if request.giaddr == _NOWHERE:
        behind_a_router = request.ciaddr != _NOWHERE and terms.server not in terms.subnet
        return Reply(packet, Unicast(request.ciaddr, CLIENT_PORT) if behind_a_router else _TO_ALL)
    # RFC 2131 §4.3.2: the flag makes the relay broadcast it, for the client's address may be wrong.
    flagged = replace(packet, flags=packet.flags | BROADCAST_FLAG)
    return Reply(flagged, Unicast(request.giaddr, terms.relay_port))


def _grant(
    kind: MessageType,
    request: Packet,
    client: Client,
    terms: Terms,
    address: IPv4Address,
    decision: Decision,
    name: str,
) -> Reply:
    given = terms.times | _given(request, client, terms, decision, name)
    packet = reply_frame(kind, request, terms.identifier, given, address)
    return Reply(
        with_bootfile(packet, terms.server, decision), destination(request, address, terms.relay_port)
    )


def reply_frame(
    kind: MessageType,
    request: Packet,
    server: IPv4Address,
    given: Mapping[int, bytes],
    address: IPv4Address = _NOWHERE,
) -> Packet:
    """The frame of any reply: fields echoed, options as many as the client can take.

    `server` is our name to the client; `given` has the options in order, the first kept longest. The option
    overload of RFC 2132 §9.3 is never used: some ROMs read `file` raw.
    """
    asked = request.options
    must = {
        options.MESSAGE_TYPE.code: bytes((kind,)),
        options.SERVER_IDENTIFIER.code: server.packed,
    }
    echoed = {code: asked[code] for code in ECHOED if code in asked}
    return Packet(
        op=BOOTREPLY,
        xid=request.xid,
        chaddr=request.chaddr,
        htype=request.htype,
        flags=request.flags,
        ciaddr=request.ciaddr,
        yiaddr=address,
        giaddr=request.giaddr,
        options=_fitted(must, {**given}, echoed, _limit(request)),
    )


def _limit(request: Packet) -> int:
    """Most bytes of UDP payload that the client takes (option 57 counts the IP datagram)."""
    size = value_of(request, options.MAX_MESSAGE_SIZE)
    wanted = size if isinstance(size, int) else DEFAULT_MESSAGE_BYTES
    return min(max(wanted, DEFAULT_MESSAGE_BYTES), MAX_MESSAGE_BYTES) - IP_UDP_BYTES


def _fitted(
    must: dict[int, bytes], given: dict[int, bytes], echoed: dict[int, bytes], limit: int
) -> dict[int, bytes]:
    """Leave out what does not fit: what is given, from the end, then what is echoed, from its front."""
    room = (
        limit - HEADER_BYTES - sum(_size(value) for item in (must, given, echoed) for value in item.values())
    )
    while room < 0 and given:
        room += _size(given.popitem()[1])
    while room < 0 and echoed:
        room += _size(echoed.pop(next(iter(echoed))))
    return {**must, **given, **echoed}


def _size(value: bytes) -> int:
    """Bytes on the wire, with code and length of each part (RFC 3396 §5)."""
    return len(value) + (2 if len(value) <= 255 else 2 * -(-len(value) // 255))


def _given(request: Packet, client: Client, terms: Terms, decision: Decision, name: str) -> dict[int, bytes]:
    """What is given beside address and times: what booting needs, what is asked for in the order of the
    asking (RFC 2131 §4.3.1), and what the operator has set without being asked for."""
    given = dict(terms.basic)
    if decision.bootfile:
        given |= boot_options(client, terms.server, decision, suboptions(client, terms))
    available = terms.available
    asked = request.options.get(options.PARAMETER_REQUEST_LIST.code)
    for code in (HOST_NAME, *available) if asked is None else asked:
        if code in given:
            continue
        if code in available:
            given[code] = available[code]
        elif code == HOST_NAME and name:
            given[code] = options.HOST_NAME.encode(name)
    # ROMs and small devices ask for little, and the operator has a reason.
    for code in terms.options:
        given.setdefault(code, available[code])
    return given


def suboptions(client: Client, terms: Terms) -> Mapping[int, bytes]:
    """Option 43 for firmware: its own sub-options, with those of the operator over them."""
    own = pxe_suboptions(client)
    try:
        return {**own, **(read(options.VENDOR_SPECIFIC, terms.options) or {})}
    except MalformedPacket:
        return own  # the operator's bytes are for another kind of client


def destination(request: Packet, address: IPv4Address, relay_port: int = RELAY_PORT) -> Destination:
    """RFC 2131 §4.1, in its order."""
    if request.giaddr != _NOWHERE:
        return Unicast(request.giaddr, relay_port)
    if request.ciaddr != _NOWHERE:
        return Unicast(request.ciaddr, CLIENT_PORT)
    return to_newcomer(request, request.mac, address)


def to_newcomer(request: Packet, mac: Mac, address: IPv4Address) -> Destination:
    """To a machine on our link that has no address yet. `mac` may be another's than the request's."""
    if request.wants_broadcast or address == _NOWHERE:
        return _TO_ALL
    return Direct(mac, address)
