"""Router solicitations and advertisements (RFC 4861 §4.1, §4.2)."""

import struct

from pxeboot.errors import MalformedPacket
from pxeboot.mac import Mac

ROUTER_SOLICITATION, ROUTER_ADVERTISEMENT = 133, 134
_SOURCE_LINK_LAYER_ADDRESS = 1
_OPTION_UNIT_BYTES = 8
_ADVERTISEMENT = struct.Struct("!BBHBBHII")


def decode_solicitation(data: bytes) -> Mac:
    """The hardware address of who asks for routers. Raises MalformedPacket, also where it does not say."""
    if len(data) < 8 or data[0] != ROUTER_SOLICITATION or data[1] != 0:
        raise MalformedPacket("no router solicitation")
    at = 8
    while at + 2 <= len(data):
        kind, length = data[at], data[at + 1] * _OPTION_UNIT_BYTES
        if length == 0 or at + length > len(data):
            raise MalformedPacket("a neighbour discovery option runs past the end")
        if kind == _SOURCE_LINK_LAYER_ADDRESS and length == 8:
            return Mac.from_bytes(data[at + 2 : at + 8])
        at += length
    raise MalformedPacket("a router solicitation without the sender's hardware address")


def encode_no_router() -> bytes:
    """An advertisement that says: I am no router, there is nothing to configure.

    Lifetime 0 keeps its sender out of default router lists (RFC 4861 §6.3.4); no flags, so no DHCPv6; no
    prefix, so no addresses; zeros for "unspecified". The kernel fills in the checksum.
    """
    return _ADVERTISEMENT.pack(ROUTER_ADVERTISEMENT, 0, 0, 0, 0, 0, 0, 0)
