"""The kinds of value that options hold, each both ways: a typed value to bytes and bytes to a typed value.

A decoder may raise ValueError, IndexError or struct.error for bytes that are not of its kind.
"""

import struct
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network
from typing import Any, NamedTuple
from uuid import UUID

ADDRESSES_KEPT = 65536


class Kind(NamedTuple):
    """Both directions of a kind of value."""

    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]


class Route(NamedTuple):
    """A row of option 121: packets for `destination` go to `router`; 0.0.0.0 means that it is on the link."""

    destination: IPv4Network
    router: IPv4Address


def encode_uint8(value: int) -> bytes:
    return bytes((value,))


def decode_uint8(raw: bytes) -> int:
    (value,) = raw
    return value


def encode_uint16(value: int) -> bytes:
    return struct.pack("!H", value)


def decode_uint16(raw: bytes) -> int:
    value: int = struct.unpack("!H", raw)[0]
    return value


def encode_uint32(value: int) -> bytes:
    return struct.pack("!I", value)


def decode_uint32(raw: bytes) -> int:
    value: int = struct.unpack("!I", raw)[0]
    return value


def encode_int32(value: int) -> bytes:
    return struct.pack("!i", value)


def encode_uint16_list(value: tuple[int, ...]) -> bytes:
    return struct.pack(f"!{len(value)}H", *value)


def decode_uint16_list(raw: bytes) -> tuple[int, ...]:
    if not raw or len(raw) % 2:
        refuse(f"{len(raw)} bytes are no list of 16-bit numbers")
    return struct.unpack(f"!{len(raw) // 2}H", raw)


address_of = lru_cache(ADDRESSES_KEPT)(IPv4Address)
"""The address of four bytes. Making one takes a microsecond, and a storm names the same ones all the time."""


def encode_address(value: IPv4Address) -> bytes:
    return value.packed


def decode_address(raw: bytes) -> IPv4Address:
    return address_of(raw) if len(raw) == 4 else refuse(f"{len(raw)} bytes are not an address")


def encode_addresses(value: Iterable[IPv4Address]) -> bytes:
    return b"".join(address.packed for address in value)


def decode_addresses(raw: bytes) -> tuple[IPv4Address, ...]:
    if not raw or len(raw) % 4:
        refuse(f"{len(raw)} bytes are no list of addresses")
    return tuple(IPv4Address(raw[at : at + 4]) for at in range(0, len(raw), 4))


def encode_text(value: str) -> bytes:
    return value.encode()


def decode_text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode(errors="replace")  # RFC 2132 §2: a trailing NUL is to be forgiven


def encode_text_nul(value: str) -> bytes:
    return value.encode() + b"\0"  # some ROMs read on until a NUL, past the option


def encode_uuid(value: UUID) -> bytes:
    return b"\0" + value.bytes_le


def decode_uuid(raw: bytes) -> UUID:
    """Type 0 and the 16 bytes of SMBIOS, whose first three fields are little-endian (PXE 2.1 §2.2.5)."""
    if len(raw) != 17 or raw[0] != 0:
        refuse(f"{len(raw)} bytes of type {raw[:1].hex() or 'none'} are no UUID")
    return UUID(bytes_le=raw[1:])


def encode_user_class(value: tuple[str, ...]) -> bytes:
    return b"".join(bytes((len(item.encode()),)) + item.encode() for item in value)


def decode_user_class(raw: bytes) -> tuple[str, ...]:
    """Length-prefixed items as in RFC 3004 §4, or one bare string as iPXE and others send it."""
    items, at = [], 0
    while at < len(raw):
        length = raw[at]
        if length == 0 or at + 1 + length > len(raw):
            return (decode_text(raw),)
        items.append(decode_text(raw[at + 1 : at + 1 + length]))
        at += 1 + length
    return tuple(items)


def encode_domains(value: Iterable[str]) -> bytes:
    """DNS names in wire form (RFC 3397 §2), none compressed: that is allowed, and every client reads it."""
    return b"".join(_encode_domain(name) for name in value)


def _encode_domain(name: str) -> bytes:
    labels = [label.encode("ascii") for label in name.removesuffix(".").split(".")]
    if not all(0 < len(label) < 64 for label in labels):
        refuse(f"{name!r} is not a domain name: each of its labels has 1 to 63 characters")
    wire = b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
    return wire if len(wire) <= 255 else refuse(f"{name!r} is longer than 253 characters")


def decode_domains(raw: bytes) -> tuple[str, ...]:
    """Names in wire form; a pointer leads backwards, into the same option (RFC 3397 §2)."""
    names, at = [], 0
    while at < len(raw):
        labels, at = _decode_domain(raw, at)
        names.append(b".".join(labels).decode("ascii"))
    return tuple(names)


def _decode_domain(raw: bytes, start: int) -> tuple[list[bytes], int]:
    """The labels of the name at `start`, and where the next name begins."""
    labels: list[bytes] = []
    at, after, earliest = start, 0, start
    while raw[at]:
        length = raw[at]
        if length < 64:
            labels.append(raw[at + 1 : at + 1 + length])
            at += 1 + length
            continue
        after, at = after or at + 2, (length & 0x3F) << 8 | raw[at + 1]
        if length < 0xC0 or at >= earliest:
            refuse("a name's pointer leads nowhere")  # always backwards, so that it ends
        earliest = at
    return labels, after or at + 1


def encode_routes(value: Iterable[Route]) -> bytes:
    """RFC 3442: prefix length, the octets of the destination that it covers, the router."""
    return b"".join(
        bytes((destination.prefixlen,))
        + destination.network_address.packed[: (destination.prefixlen + 7) // 8]
        + router.packed
        for destination, router in value
    )


def decode_routes(raw: bytes) -> tuple[Route, ...]:
    routes, at = [], 0
    while at < len(raw):
        octets = (raw[at] + 7) // 8
        destination = raw[at + 1 : at + 1 + octets].ljust(4, b"\0")
        router = decode_address(raw[at + 1 + octets : at + 5 + octets])
        routes.append(Route(IPv4Network((destination, raw[at])), router))
        at += 5 + octets
    return tuple(routes)


def encode_raw(value: bytes) -> bytes:
    return value


def decode_raw(raw: bytes) -> bytes:
    return raw


def encode_suboptions(value: Mapping[int, bytes]) -> bytes:
    return b"".join(bytes((code, len(raw))) + raw for code, raw in value.items())


def refuse(reason: str) -> Any:
    raise ValueError(reason)


UINT8 = Kind(encode_uint8, decode_uint8)
UINT16 = Kind(encode_uint16, decode_uint16)
UINT32 = Kind(encode_uint32, decode_uint32)
UINT16_LIST = Kind(encode_uint16_list, decode_uint16_list)
ADDRESS = Kind(encode_address, decode_address)
ADDRESSES = Kind(encode_addresses, decode_addresses)
TEXT = Kind(encode_text, decode_text)
TEXT_NUL = Kind(encode_text_nul, decode_text)
UUID_OF_SMBIOS = Kind(encode_uuid, decode_uuid)
USER_CLASS = Kind(encode_user_class, decode_user_class)
DOMAINS = Kind(encode_domains, decode_domains)
ROUTES = Kind(encode_routes, decode_routes)
RAW = Kind(encode_raw, decode_raw)
