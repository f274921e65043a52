"""From a request to its reply and where that goes: RFC 2131 §4.3 as pure functions."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from ipaddress import IPv4Address, IPv4Network

from pxeboot.dhcp import options
from pxeboot.dhcp.bootfile import boot_options, pxe_suboptions, with_bootfile
from pxeboot.dhcp.options import MessageType, Option
from pxeboot.dhcp.packet import BOOTREPLY, BROADCAST_FLAG, Packet, encode, value_of
from pxeboot.mac import Mac
from pxeboot.pxe.client import Client
from pxeboot.pxe.policy import Decision

SERVER_PORT, CLIENT_PORT = 67, 68
DEFAULT_MESSAGE_BYTES = 576
"""What every client takes (RFC 2131 §2): the IP datagram, 28 bytes of headers included."""
IP_UDP_BYTES = 28

_NOWHERE = IPv4Address(0)


@dataclass(frozen=True, slots=True)
class Terms:
    """What one network gives its machines, and who says so."""

    server: IPv4Address
    subnet: IPv4Network
    router: IPv4Address | None
    dns: tuple[IPv4Address, ...]
    lease_seconds: int


class Asks(Enum):
    """What a REQUEST is (RFC 2131 §4.3.2, table 4)."""

    SELECTING = "selecting"
    """It takes our offer."""
    ELSEWHERE = "elsewhere"
    """It takes another server's offer."""
    REBOOTING = "init-reboot"
    """It remembers an address and asks whether that still holds."""
    RENEWING = "renewing"
    """It has the address and wants it for longer; renewing and rebinding differ in nothing we do."""
    UNCLEAR = "unclear"


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


@dataclass(frozen=True, slots=True)
class Reply:
    """A packet and where it goes."""

    packet: Packet
    destination: Destination


def classify(request: Packet, server: IPv4Address) -> tuple[Asks, IPv4Address]:
    """What a REQUEST asks, and for which address (0.0.0.0 where UNCLEAR)."""
    chosen = value_of(request, options.SERVER_IDENTIFIER)
    wanted = value_of(request, options.REQUESTED_ADDRESS)
    if chosen is not None:
        if chosen != server:
            return Asks.ELSEWHERE, _NOWHERE
        address = wanted if isinstance(wanted, IPv4Address) else request.ciaddr
        return (Asks.SELECTING, address) if address != _NOWHERE else (Asks.UNCLEAR, _NOWHERE)
    if request.ciaddr != _NOWHERE:
        return Asks.RENEWING, request.ciaddr
    if isinstance(wanted, IPv4Address):
        return Asks.REBOOTING, wanted
    return Asks.UNCLEAR, _NOWHERE


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
    given = _given(client, terms, decision, name)
    packet = reply_frame(MessageType.ACK, request, terms.server, given)
    return Reply(with_bootfile(packet, terms.server, decision), destination(request, _NOWHERE))


def nak(request: Packet, terms: Terms, reason: str) -> Reply:
    """Tell a client to forget its address and begin again: always broadcast, through a relay too."""
    given = _raw({options.MESSAGE: reason})
    packet = replace(reply_frame(MessageType.NAK, request, terms.server, given), ciaddr=_NOWHERE)
    if request.giaddr == _NOWHERE:
        return Reply(packet, Broadcast())
    # RFC 2131 §4.3.2: the flag makes the relay broadcast it, for the client's address may be wrong.
    return Reply(replace(packet, flags=packet.flags | BROADCAST_FLAG), Unicast(request.giaddr, SERVER_PORT))


def _grant(
    kind: MessageType,
    request: Packet,
    client: Client,
    terms: Terms,
    address: IPv4Address,
    decision: Decision,
    name: str,
) -> Reply:
    times = _raw(
        {
            options.LEASE_TIME: terms.lease_seconds,
            options.RENEWAL_TIME: terms.lease_seconds // 2,  # RFC 2131 §4.4.5
            options.REBINDING_TIME: terms.lease_seconds * 7 // 8,
        }
    )
    packet = reply_frame(kind, request, terms.server, times | _given(client, terms, decision, name))
    packet = replace(packet, yiaddr=address)
    return Reply(with_bootfile(packet, terms.server, decision), destination(request, address))


def reply_frame(kind: MessageType, request: Packet, server: IPv4Address, given: dict[int, bytes]) -> Packet:
    """The frame of any reply: fields echoed, options as many as the client can take."""
    must = _raw({options.MESSAGE_TYPE: kind, options.SERVER_IDENTIFIER: server})
    echoed = {
        option.code: request.options[option.code]
        # RFC 6842; RFC 4578 §2.3; RFC 3046 §2.1 wants option 82 last
        for option in (
            options.CLIENT_IDENTIFIER,
            options.CLIENT_MACHINE_IDENTIFIER,
            options.RELAY_AGENT_INFORMATION,
        )
        if option.code in request.options
    }
    last = {82: echoed.pop(82)} if 82 in echoed else {}
    packet = Packet(
        op=BOOTREPLY,
        xid=request.xid,
        chaddr=request.chaddr,
        htype=request.htype,
        flags=request.flags,
        ciaddr=request.ciaddr,
        giaddr=request.giaddr,
    )
    return _fitted(packet, must | echoed, given, last, _limit(request))


def _limit(request: Packet) -> int:
    """Most bytes of UDP payload that the client takes (option 57 counts the IP datagram)."""
    size = value_of(request, options.MAX_MESSAGE_SIZE)
    wanted = size if isinstance(size, int) else DEFAULT_MESSAGE_BYTES
    return max(wanted, DEFAULT_MESSAGE_BYTES) - IP_UDP_BYTES


def _fitted(
    packet: Packet,
    must: dict[int, bytes],
    given: dict[int, bytes],
    last: dict[int, bytes],
    limit: int,
) -> Packet:
    """Leave out what does not fit, from the end."""
    kept = dict(given)
    while True:
        fitted = replace(packet, options={**must, **kept, **last})
        if not kept or len(encode(fitted)) <= limit:
            return fitted
        kept.popitem()


def _given(client: Client, terms: Terms, decision: Decision, name: str) -> dict[int, bytes]:
    """What the network gives, in the order in which it would be missed."""
    given = _raw({options.SUBNET_MASK: terms.subnet.netmask})
    if terms.router is not None:
        given |= _raw({options.ROUTER: (terms.router,)})
    given |= boot_options(client, terms.server, decision, pxe_suboptions(client))
    if terms.dns:
        given |= _raw({options.DOMAIN_NAME_SERVER: terms.dns})
    if name:
        given |= _raw({options.HOST_NAME: name})
    return given | _raw({options.BROADCAST_ADDRESS: terms.subnet.broadcast_address})


def destination(request: Packet, address: IPv4Address) -> Destination:
    """RFC 2131 §4.1, in its order."""
    if request.giaddr != _NOWHERE:
        return Unicast(request.giaddr, SERVER_PORT)
    if request.ciaddr != _NOWHERE:
        return Unicast(request.ciaddr, CLIENT_PORT)
    if request.wants_broadcast or address == _NOWHERE:
        return Broadcast()
    return Direct(request.mac, address)


def _raw(values: Mapping[Option, object]) -> dict[int, bytes]:
    return {option.code: option.encode(value) for option, value in values.items()}
