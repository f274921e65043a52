"""Who gives addresses and boot files here? The questions, and what the answers say of who gave them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from uuid import UUID

from pxeboot.dhcp import options, packet
from pxeboot.dhcp.options import MessageType, Option
from pxeboot.dhcp.packet import BOOTREPLY, BOOTREQUEST, BROADCAST_FLAG, Packet, value_of
from pxeboot.errors import MalformedPacket
from pxeboot.mac import Mac
from pxeboot.pxe.client import PROBE_CLASS

_NOWHERE = IPv4Address(0)
_UNDI = bytes((1, 2, 1))  # option 94, RFC 4578 §2.2: UNDI 2.1
_WANTED = bytes((1, 3, 6, 15, 43, 51, 54, 60, 66, 67))

QUESTIONS: dict[str, tuple[str, int] | None] = {
    "plain": None,
    "BIOS": ("PXEClient:Arch:00000:UNDI:002001", 0),
    "UEFI": ("PXEClient:Arch:00007:UNDI:003016", 7),
    "HTTP": ("HTTPClient:Arch:00016:UNDI:003001", 16),
}
"""Vendor class and architecture of each kind of client; some servers answer only some of them."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A UDP payload from port 67, and the frame it came in."""

    interface: str
    mac: Mac
    address: IPv4Address
    payload: bytes


@dataclass(frozen=True, slots=True)
class Server:
    """One server as seen from one interface."""

    interface: str
    server: IPv4Address
    """Its identifier (option 54); the sender's address where it gives none."""
    mac: Mac
    """Of the frame's sender: the server, or the relay before it."""
    address: IPv4Address
    gives_addresses: bool
    gives_boot_only: bool
    """It sends offers without an address, as ProxyDHCP servers do."""
    offered: IPv4Address | None
    boots: Mapping[str, str]
    """What it has a client of each kind load, by QUESTIONS."""

    @property
    def kind(self) -> str:
        """What operators call it."""
        kinds = ("DHCP", self.gives_addresses), ("ProxyDHCP", self.gives_boot_only)
        return " and ".join(name for name, is_one in kinds if is_one)


def questions(mac: Mac, uuid: UUID, xid: int) -> dict[int, tuple[str, bytes]]:
    """The DISCOVERs by transaction number, from `xid` on: the name of each and its UDP payload.

    Answers are asked for as broadcasts: the frame that carries the question has our own hardware address,
    since virtual switches and port security drop frames from others, so nobody could reach `mac` directly.
    """
    return {
        xid + number: (name, packet.encode(_discover(name, mac, uuid, xid + number)))
        for number, name in enumerate(QUESTIONS)
    }


def _discover(name: str, mac: Mac, uuid: UUID, xid: int) -> Packet:
    told: dict[Option, object] = {
        options.MESSAGE_TYPE: MessageType.DISCOVER,
        options.USER_CLASS: (PROBE_CLASS,),  # so that our own server makes no node of it
        options.PARAMETER_REQUEST_LIST: _WANTED,
        options.MAX_MESSAGE_SIZE: 1472,
    }
    raw = {option.code: option.encode(value) for option, value in told.items()}
    client = QUESTIONS[name]
    if client is not None:
        vendor_class, arch = client
        raw[options.VENDOR_CLASS.code] = vendor_class.encode()
        raw[options.CLIENT_ARCHITECTURE.code] = options.CLIENT_ARCHITECTURE.encode((arch,))
        raw[94] = _UNDI
        raw[options.CLIENT_MACHINE_IDENTIFIER.code] = options.CLIENT_MACHINE_IDENTIFIER.encode(uuid)
    return Packet(op=BOOTREQUEST, xid=xid, chaddr=mac.packed, flags=BROADCAST_FLAG, options=raw)


def servers(heard: Iterable[Heard], asked: Mapping[int, str], client: Mac) -> list[Server]:
    """The table: one row per interface, server and sender, in the order of their first answers.

    `asked` names the questions by transaction number; what answers none of them is left out, as is what
    cannot be read.
    """
    offers: dict[tuple[str, IPv4Address, Mac, IPv4Address], list[tuple[str, Packet]]] = {}
    for item in heard:
        offer = _offer(item.payload, client)
        if offer is None or offer.xid not in asked:
            continue
        identifier = value_of(offer, options.SERVER_IDENTIFIER)
        server = identifier if isinstance(identifier, IPv4Address) else item.address
        key = (item.interface, server, item.mac, item.address)
        offers.setdefault(key, []).append((asked[offer.xid], offer))
    return [_server(*key, answers) for key, answers in offers.items()]


def _offer(payload: bytes, client: Mac) -> Packet | None:
    try:
        reply = packet.decode(payload)
        is_offer = reply.op == BOOTREPLY and reply.message_type is MessageType.OFFER and reply.mac == client
    except MalformedPacket:
        return None
    return reply if is_offer else None


def _server(
    interface: str,
    server: IPv4Address,
    mac: Mac,
    address: IPv4Address,
    answers: Sequence[tuple[str, Packet]],
) -> Server:
    given = [offer.yiaddr for _, offer in answers if offer.yiaddr != _NOWHERE]
    boots = {name: boot for name, offer in answers if (boot := _boot(name, offer))}
    return Server(
        interface,
        server,
        mac,
        address,
        gives_addresses=bool(given),
        gives_boot_only=len(given) < len(answers),
        offered=given[0] if given else None,
        boots={name: boots[name] for name in QUESTIONS if name in boots},
    )


def _boot(name: str, offer: Packet) -> str:
    """What an offer has its client load, from where; empty where it says nothing of that."""
    file = value_of(offer, options.BOOTFILE_NAME) or offer.file.decode(errors="replace")
    if not file:
        # PXE 2.1 §2.2.3: an offer that names no file has its client ask again, at port 4011.
        is_proxy = offer.yiaddr == _NOWHERE and name != "plain"
        return "asks it again at port 4011" if is_proxy else ""
    if "://" in str(file):
        return str(file)
    host = value_of(offer, options.TFTP_SERVER_NAME) or (offer.siaddr if offer.siaddr != _NOWHERE else None)
    return f"{file} from {host or 'the server itself'}"


def remarks(
    found: Sequence[Server], interfaces: Sequence[str], own: Mapping[str, IPv4Address], seconds: float
) -> list[str]:
    """What the table means for the operator; `own` is where this box's pxeboot answers, by interface."""
    told = []
    for interface in interfaces:
        here = [item for item in found if item.interface == interface]
        givers = sorted({item.server for item in here if item.gives_addresses})
        if not here:
            told.append(f"{interface}: nobody answered within {seconds:g} s")
        if len(givers) > 1:
            names = ", ".join(map(str, givers))
            told.append(
                f"{interface}: {len(givers)} servers give addresses ({names}), and each machine takes "
                "that of whom it hears first; stop all but one"
            )
        if interface in own and own[interface] not in {item.server for item in here}:
            told.append(f"{interface}: this box's pxeboot ({own[interface]}) did not answer; see its log")
    return told
