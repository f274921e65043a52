"""DHCP options: the area as raw values by code, and a table of typed readers and writers.

A packet keeps its options raw, so that a malformed one harms only who asks for it.
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypeVar

from pxeboot.dhcp import values
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


def _decode_suboptions(raw: bytes) -> dict[int, bytes]:
    return decode_options(raw)


SUBNET_MASK = Option(1, "subnet-mask", *values.ADDRESS)  # RFC 2132 §3.3
ROUTER = Option(3, "router", *values.ADDRESSES)  # §3.5
DOMAIN_NAME_SERVER = Option(6, "domain-name-server", *values.ADDRESSES)  # §3.8
HOST_NAME = Option(12, "host-name", *values.TEXT)  # §3.14
DOMAIN_NAME = Option(15, "domain-name", *values.TEXT)  # §3.17
BROADCAST_ADDRESS = Option(28, "broadcast-address", *values.ADDRESS)  # §5.3
NTP_SERVERS = Option(42, "ntp-servers", *values.ADDRESSES)  # §8.3
VENDOR_SPECIFIC = Option(43, "vendor-specific", values.encode_suboptions, _decode_suboptions)  # §8.4, PXE 2.1
REQUESTED_ADDRESS = Option(50, "requested-address", *values.ADDRESS)  # §9.1
LEASE_TIME = Option(51, "lease-time", *values.UINT32)  # §9.2, seconds
OVERLOAD = Option(OVERLOAD_CODE, "overload", *values.UINT8)  # §9.3
MESSAGE_TYPE = Option(
    53, "message-type", values.encode_uint8, lambda raw: MessageType(values.decode_uint8(raw))
)  # §9.6
SERVER_IDENTIFIER = Option(54, "server-identifier", *values.ADDRESS)  # §9.7
PARAMETER_REQUEST_LIST = Option(55, "parameter-request-list", *values.RAW)  # §9.8
MESSAGE = Option(56, "message", *values.TEXT)  # §9.9
MAX_MESSAGE_SIZE = Option(57, "max-message-size", *values.UINT16)  # §9.10, bytes
RENEWAL_TIME = Option(58, "renewal-time", *values.UINT32)  # §9.11, T1, seconds
REBINDING_TIME = Option(59, "rebinding-time", *values.UINT32)  # §9.12, T2, seconds
VENDOR_CLASS = Option(60, "vendor-class", *values.TEXT)  # §9.13
CLIENT_IDENTIFIER = Option(61, "client-identifier", *values.RAW)  # §9.14
TFTP_SERVER_NAME = Option(66, "tftp-server-name", *values.TEXT_NUL)  # §9.4
BOOTFILE_NAME = Option(67, "bootfile-name", *values.TEXT_NUL)  # §9.5
USER_CLASS = Option(77, "user-class", *values.USER_CLASS)  # RFC 3004
RELAY_AGENT_INFORMATION = Option(82, "relay-agent-information", *values.RAW)  # RFC 3046
CLIENT_ARCHITECTURE = Option(93, "client-architecture", *values.UINT16_LIST)  # RFC 4578
CLIENT_MACHINE_IDENTIFIER = Option(97, "client-machine-identifier", *values.UUID_OF_SMBIOS)  # RFC 4578
SUBNET_SELECTION = Option(118, "subnet-selection", *values.ADDRESS)  # RFC 3011
DOMAIN_SEARCH = Option(119, "domain-search", *values.DOMAINS)  # RFC 3397
CLASSLESS_STATIC_ROUTES = Option(121, "classless-static-routes", *values.ROUTES)  # RFC 3442
ETHERBOOT = Option(175, "etherboot", values.encode_suboptions, _decode_suboptions)  # iPXE's own, encapsulated

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
