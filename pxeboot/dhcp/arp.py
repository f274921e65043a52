"""ARP frames on Ethernet (RFC 826), as far as a probe needs them."""

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address

from pxeboot.errors import MalformedPacket
from pxeboot.mac import Mac

ETHERTYPE = 0x0806
_BROADCAST = b"\xff" * 6
_ETHERNET_IPV4 = (1, 0x0800, 6, 4)  # hardware and protocol type, and the lengths of their addresses
_REQUEST = 1
_FRAME = struct.Struct("!6s6sH HHBBH 6s4s6s4s")


@dataclass(frozen=True, slots=True)
class Claim:
    """What any ARP packet says of its sender, whether it asks or answers."""

    mac: Mac
    address: IPv4Address
    """0.0.0.0 in a probe: its sender claims nothing."""


def encode_probe(mac: Mac, address: IPv4Address) -> bytes:
    """A frame that asks who has the address, from nobody.

    RFC 5227 §2.1.1: the sender's address is 0.0.0.0, so that no machine's ARP cache takes us for the owner.
    Linux routers with proxy ARP do not answer for others when asked in this way.
    """
    return _request(mac, IPv4Address(0), address)


def encode_announcement(mac: Mac, address: IPv4Address) -> bytes:
    """A frame that tells everybody whose the address is now (RFC 5227 §2.3): caches learn it anew."""
    return _request(mac, address, address)


def _request(mac: Mac, sender: IPv4Address, target: IPv4Address) -> bytes:
    return _FRAME.pack(
        _BROADCAST,
        mac.packed,
        ETHERTYPE,
        *_ETHERNET_IPV4,
        _REQUEST,
        mac.packed,
        sender.packed,
        bytes(6),
        target.packed,
    )


def decode(frame: bytes) -> Claim:
    """Read one frame. Raises MalformedPacket."""
    if len(frame) < _FRAME.size:
        raise MalformedPacket(f"{len(frame)} bytes are too few for ARP")
    _, _, ethertype, *kind, _, sender, address, _, _ = _FRAME.unpack_from(frame)
    if ethertype != ETHERTYPE or tuple(kind) != _ETHERNET_IPV4:
        raise MalformedPacket("not ARP for IPv4 on Ethernet")
    return Claim(Mac.from_bytes(sender), IPv4Address(address))
