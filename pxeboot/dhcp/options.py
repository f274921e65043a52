"""DHCP options: the area as raw values by code, and a table of typed readers and writers.

A packet keeps its options raw, so that a malformed one harms only who asks for it.
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address
from typing import Any, TypeVar
from uuid import UUID

from pxeboot.errors import MalformedPacket

PAD, OVERLOAD_CODE, END = 0, 52, 255

T = TypeVar("T")


class MessageType(IntEnum):
    """Option 53 (RFC 2132 §9.6)."""

    DISCOVER = 1
    OFFER = 2
    REQUEST = 3
    DECLINE = 4
    ACK = 5
    NAK = 6
    RELEASE = 7
    INFORM = 8


@dataclass(frozen=True, slots=True)
class Option:
    """One row of the table: wire code, the standard's name, and both directions of its value.

    `decode` may raise ValueError, IndexError or struct.error, of which `read` makes MalformedPacket.
    """

    code: int
    name: str
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]


def read(option: Option, options: Mapping[int, bytes]) -> Any:
    """The typed value of an option, None where it is not there. Raises MalformedPacket."""
    raw = options.get(option.code)
    if raw is None:
        return None
    try:
        return option.decode(raw)
    except (ValueError, IndexError, struct.error) as error:
        raise MalformedPacket(f"option {option.code} ({option.name}): {error}") from error


def _encode_uint8(value: int) -> bytes:
    return bytes((value,))


def _decode_uint8(raw: bytes) -> int:
    (value,) = raw
    return value


def _encode_uint16(value: int) -> bytes:
    return struct.pack("!H", value)


def _decode_uint16(raw: bytes) -> int:
    value: int = struct.unpack("!H", raw)[0]
    return value


def _encode_uint32(value: int) -> bytes:
    return struct.pack("!I", value)


def _decode_uint32(raw: bytes) -> int:
    value: int = struct.unpack("!I", raw)[0]
    return value


def _encode_address(value: IPv4Address) -> bytes:
    return value.packed


def _decode_address(raw: bytes) -> IPv4Address:
    return IPv4Address(raw) if len(raw) == 4 else _refuse(f"{len(raw)} bytes are not an address")


def _encode_addresses(value: tuple[IPv4Address, ...]) -> bytes:
    return b"".join(address.packed for address in value)


def _decode_addresses(raw: bytes) -> tuple[IPv4Address, ...]:
    if not raw or len(raw) % 4:
        _refuse(f"{len(raw)} bytes are no list of addresses")
    return tuple(IPv4Address(raw[at : at + 4]) for at in range(0, len(raw), 4))


def _encode_text(value: str) -> bytes:
    return value.encode()


def _decode_text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode(errors="replace")  # RFC 2132 §2: a trailing NUL is to be forgiven


def _encode_text_nul(value: str) -> bytes:
    return value.encode() + b"\0"  # some ROMs read on until a NUL, past the option


def _encode_uint16_list(value: tuple[int, ...]) -> bytes:
    return struct.pack(f"!{len(value)}H", *value)


def _decode_uint16_list(raw: bytes) -> tuple[int, ...]:
    if not raw or len(raw) % 2:
        _refuse(f"{len(raw)} bytes are no list of 16-bit numbers")
    return struct.unpack(f"!{len(raw) // 2}H", raw)


def _encode_uuid(value: UUID) -> bytes:
    return b"\0" + value.bytes_le


def _decode_uuid(raw: bytes) -> UUID:
    """Type 0 and the 16 bytes of SMBIOS, whose first three fields are little-endian (PXE 2.1 §2.2.5)."""
    if len(raw) != 17 or raw[0] != 0:
        _refuse(f"{len(raw)} bytes of type {raw[:1].hex() or 'none'} are no UUID")
    return UUID(bytes_le=raw[1:])


def _encode_user_class(value: tuple[str, ...]) -> bytes:
    return b"".join(bytes((len(item.encode()),)) + item.encode() for item in value)


def _decode_user_class(raw: bytes) -> tuple[str, ...]:
    """Length-prefixed items as in RFC 3004 §4, or one bare string as iPXE and others send it."""
    items, at = [], 0
    while at < len(raw):
        length = raw[at]
        if length == 0 or at + 1 + length > len(raw):
            return (_decode_text(raw),)
        items.append(_decode_text(raw[at + 1 : at + 1 + length]))
        at += 1 + length
    return tuple(items)


def _encode_raw(value: bytes) -> bytes:
    return value


def _decode_raw(raw: bytes) -> bytes:
    return raw


def _encode_suboptions(value: Mapping[int, bytes]) -> bytes:
    return b"".join(bytes((code, len(raw))) + raw for code, raw in value.items())


def _decode_suboptions(raw: bytes) -> dict[int, bytes]:
    return decode_options(raw)


def _refuse(reason: str) -> Any:
    raise ValueError(reason)


SUBNET_MASK = Option(1, "subnet-mask", _encode_address, _decode_address)  # RFC 2132 §3.3
ROUTER = Option(3, "router", _encode_addresses, _decode_addresses)  # §3.5
DOMAIN_NAME_SERVER = Option(6, "domain-name-server", _encode_addresses, _decode_addresses)  # §3.8
HOST_NAME = Option(12, "host-name", _encode_text, _decode_text)  # §3.14
BROADCAST_ADDRESS = Option(28, "broadcast-address", _encode_address, _decode_address)  # §5.3
VENDOR_SPECIFIC = Option(43, "vendor-specific", _encode_suboptions, _decode_suboptions)  # §8.4, PXE 2.1
REQUESTED_ADDRESS = Option(50, "requested-address", _encode_address, _decode_address)  # §9.1
LEASE_TIME = Option(51, "lease-time", _encode_uint32, _decode_uint32)  # §9.2, seconds
OVERLOAD = Option(OVERLOAD_CODE, "overload", _encode_uint8, _decode_uint8)  # §9.3
MESSAGE_TYPE = Option(53, "message-type", _encode_uint8, lambda raw: MessageType(_decode_uint8(raw)))  # §9.6
SERVER_IDENTIFIER = Option(54, "server-identifier", _encode_address, _decode_address)  # §9.7
PARAMETER_REQUEST_LIST = Option(55, "parameter-request-list", _encode_raw, _decode_raw)  # §9.8
MESSAGE = Option(56, "message", _encode_text, _decode_text)  # §9.9
MAX_MESSAGE_SIZE = Option(57, "max-message-size", _encode_uint16, _decode_uint16)  # §9.10, bytes
RENEWAL_TIME = Option(58, "renewal-time", _encode_uint32, _decode_uint32)  # §9.11, T1, seconds
REBINDING_TIME = Option(59, "rebinding-time", _encode_uint32, _decode_uint32)  # §9.12, T2, seconds
VENDOR_CLASS = Option(60, "vendor-class", _encode_text, _decode_text)  # §9.13
CLIENT_IDENTIFIER = Option(61, "client-identifier", _encode_raw, _decode_raw)  # §9.14
TFTP_SERVER_NAME = Option(66, "tftp-server-name", _encode_text_nul, _decode_text)  # §9.4
BOOTFILE_NAME = Option(67, "bootfile-name", _encode_text_nul, _decode_text)  # §9.5
USER_CLASS = Option(77, "user-class", _encode_user_class, _decode_user_class)  # RFC 3004
RELAY_AGENT_INFORMATION = Option(82, "relay-agent-information", _encode_raw, _decode_raw)  # RFC 3046
CLIENT_ARCHITECTURE = Option(93, "client-architecture", _encode_uint16_list, _decode_uint16_list)  # RFC 4578
CLIENT_MACHINE_IDENTIFIER = Option(97, "client-machine-identifier", _encode_uuid, _decode_uuid)  # RFC 4578
ETHERBOOT = Option(175, "etherboot", _encode_suboptions, _decode_suboptions)  # iPXE's own, encapsulated

OPTIONS: dict[int, Option] = {
    item.code: item for item in list(globals().values()) if isinstance(item, Option)
}
"""The table, by code."""


def decode_options(area: bytes) -> dict[int, bytes]:
    """Split an options area into raw values by code, repeats joined in order.

    Source: RFC 2132 §2; RFC 3396 §7 (an option longer than 255 bytes comes in parts).
    Raises MalformedPacket when a length runs past the end. A missing END is accepted:
    nothing after it would be read anyway.
    """
    options: dict[int, bytes] = {}
    at, size = 0, len(area)
    while at < size:
        code = area[at]
        if code == PAD:  # no length byte
            at += 1
            continue
        if code == END:
            break
        if at + 1 >= size or at + 2 + area[at + 1] > size:
            raise MalformedPacket(f"option {code} runs past the end of its area")
        end = at + 2 + area[at + 1]
        value = area[at + 2 : end]
        options[code] = options[code] + value if code in options else value
        at = end
    return options


def encode_options(options: Mapping[int, bytes]) -> bytes:
    """An options area without END, in the order given; a long value in parts (RFC 3396 §5)."""
    parts = bytearray()
    for code, value in options.items():
        if len(value) <= 255:
            parts += bytes((code, len(value)))
            parts += value
            continue
        for at in range(0, len(value), 255):
            piece = value[at : at + 255]
            parts += bytes((code, len(piece))) + piece
    return bytes(parts)
