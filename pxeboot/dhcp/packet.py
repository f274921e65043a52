"""The BOOTP packet that carries DHCP."""

import struct
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from pxeboot.dhcp.options import (
    END,
    MESSAGE_TYPE,
    OVERLOAD_CODE,
    MessageType,
    Option,
    decode_options,
    encode_options,
    read,
)
from pxeboot.dhcp.values import address_of
from pxeboot.errors import MalformedPacket
from pxeboot.mac import Mac

MAGIC_COOKIE = b"\x63\x82\x53\x63"  # RFC 2131 §3
BROADCAST_FLAG = 0x8000
BOOTREQUEST, BOOTREPLY = 1, 2
ETHERNET = 1
MIN_BYTES = 300
"""BOOTP's size (RFC 951 §3); relays and ROMs drop what is shorter (RFC 1542 §2.1)."""

XID, CIADDR, CHADDR = slice(4, 8), slice(12, 16), slice(28, 34)
"""Where these fields are; chaddr as Ethernet has it."""
OPTIONS_AT = 240
"""The fields of BOOTP and the magic cookie; options follow."""
_HEADER = struct.Struct("!BBBBIHH4s4s4s4s16s64s128s4s")
_KINDS = {MESSAGE_TYPE.encode(kind): kind for kind in MessageType}
_NOWHERE = IPv4Address(0)


@dataclass(slots=True)
class Packet:
    """A DHCP packet (RFC 2131 §2). `sname` and `file` are what stands before their first NUL.

    Nobody changes one. It is not frozen because setting fourteen fields past the freeze takes longer than
    all the rest of decoding.
    """

    op: int
    xid: int
    chaddr: bytes
    """`hlen` bytes; six for Ethernet."""
    htype: int = ETHERNET
    hops: int = 0
    secs: int = 0
    flags: int = 0
    ciaddr: IPv4Address = _NOWHERE
    yiaddr: IPv4Address = _NOWHERE
    siaddr: IPv4Address = _NOWHERE
    giaddr: IPv4Address = _NOWHERE
    sname: bytes = b""
    file: bytes = b""
    options: dict[int, bytes] = field(default_factory=dict)

    @property
    def message_type(self) -> MessageType:
        """Option 53. Raises MalformedPacket where it is missing or unknown."""
        raw = self.options.get(MESSAGE_TYPE.code)
        if raw is None:
            raise MalformedPacket("no message type: plain BOOTP")
        kind = _KINDS.get(raw)
        if kind is None:
            raise MalformedPacket(f"message type {raw.hex()} is unknown")
        return kind

    @property
    def mac(self) -> Mac:
        """The client's hardware address. Raises MalformedPacket where it is not Ethernet's."""
        if self.htype != ETHERNET or len(self.chaddr) != 6:
            raise MalformedPacket(f"hardware type {self.htype} with {len(self.chaddr)} bytes of address")
        return Mac.from_bytes(self.chaddr)

    @property
    def wants_broadcast(self) -> bool:
        """The client cannot take unicast before it has an address (RFC 2131 §4.1)."""
        return bool(self.flags & BROADCAST_FLAG)


def decode(data: bytes) -> Packet:
    """Read one UDP payload. Raises MalformedPacket, and nothing else, for any bytes."""
    if len(data) < _HEADER.size:
        raise MalformedPacket(f"{len(data)} bytes are too few for DHCP")
    (op, htype, hlen, hops, xid, secs, flags, ciaddr, yiaddr, siaddr, giaddr, chaddr, sname, file, cookie) = (
        _HEADER.unpack_from(data)
    )
    if cookie != MAGIC_COOKIE:
        raise MalformedPacket("no magic cookie: plain BOOTP or not DHCP at all")
    if op not in (BOOTREQUEST, BOOTREPLY) or hlen > 16:
        raise MalformedPacket(f"op {op} with a hardware address of {hlen} bytes")
    options = decode_options(data[_HEADER.size :])
    overload = options.pop(OVERLOAD_CODE, b"")
    if overload:
        sname, file = _read_overloaded(options, overload[-1], sname, file)
    return Packet(
        op,
        xid,
        chaddr[:hlen],
        htype,
        hops,
        secs,
        flags,
        address_of(ciaddr),
        address_of(yiaddr),
        address_of(siaddr),
        address_of(giaddr),
        sname.partition(b"\0")[0],
        file.partition(b"\0")[0],
        options,
    )


def _read_overloaded(
    options: dict[int, bytes], overload: int, sname: bytes, file: bytes
) -> tuple[bytes, bytes]:
    """Add the options that stand in `file`, then in `sname` (RFC 2131 §4.1); return what is left of both."""
    for bit, area in ((1, file), (2, sname)):
        if overload & bit:
            for code, value in decode_options(area).items():
                options[code] = options.get(code, b"") + value
    return (b"" if overload & 2 else sname), (b"" if overload & 1 else file)


def encode(packet: Packet) -> bytes:
    """The UDP payload: at least MIN_BYTES. Raises ValueError where a field does not fit."""
    if len(packet.sname) > 63 or len(packet.file) > 127 or len(packet.chaddr) > 16:
        raise ValueError("sname, file or chaddr is too long for its field")
    header = _HEADER.pack(
        packet.op,
        packet.htype,
        len(packet.chaddr),
        packet.hops,
        packet.xid,
        packet.secs,
        packet.flags,
        packet.ciaddr.packed,
        packet.yiaddr.packed,
        packet.siaddr.packed,
        packet.giaddr.packed,
        packet.chaddr,
        packet.sname,
        packet.file,
        MAGIC_COOKIE,
    )
    return (header + encode_options(packet.options) + bytes((END,))).ljust(MIN_BYTES, b"\0")


def value_of(packet: Packet, option: Option) -> object:
    """The typed value of an option, or None: also where it is malformed, for options we can do without."""
    try:
        return read(option, packet.options)
    except MalformedPacket:
        return None
