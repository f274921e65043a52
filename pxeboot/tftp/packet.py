"""TFTP packets as bytes: RFC 1350, with the options of RFC 2347."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from pxeboot.errors import MalformedPacket

MAX_REQUEST = 1024
"""Longest request read, bytes. RFC 2347 §"Packet Formats" allows 512; twice that costs nothing."""

_HEADER = struct.Struct(">HH")


class Opcode(IntEnum):
    """RFC 1350 §5; OACK is RFC 2347's."""

    RRQ = 1
    WRQ = 2
    DATA = 3
    ACK = 4
    ERROR = 5
    OACK = 6


class ErrorCode(IntEnum):
    """RFC 1350 appendix I; 8 is RFC 2347's."""

    NOT_DEFINED = 0
    FILE_NOT_FOUND = 1
    ACCESS_VIOLATION = 2
    ILLEGAL_OPERATION = 4
    UNKNOWN_TRANSFER_ID = 5
    OPTION_NEGOTIATION = 8


@dataclass(frozen=True, slots=True)
class _Request:
    name: str
    """The file's name as the client spells it: printable, not empty."""
    mode: str
    """In lower case; `octet` and `netascii` are the ones in use."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Names in lower case, in the order asked."""


class ReadRequest(_Request):
    """RRQ: the client asks for a file."""

    __slots__ = ()


class WriteRequest(_Request):
    """WRQ: the client wants to store a file."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Data:
    """One block of the file; a payload shorter than the block size is the last one."""

    block: int
    payload: bytes | memoryview


@dataclass(frozen=True, slots=True)
class Ack:
    """Every block up to this one has arrived; 0 acknowledges an OACK."""

    block: int


@dataclass(frozen=True, slots=True)
class Error:
    """The sender has ended the transfer; never answered."""

    code: int
    message: str


@dataclass(frozen=True, slots=True)
class OptionAck:
    """The options a server grants, and their values."""

    options: Mapping[str, str]


Packet = ReadRequest | WriteRequest | Data | Ack | Error | OptionAck


def encode(packet: Packet) -> bytes:
    """The packet's bytes; raises ValueError when a text holds a NUL, which ends texts on the wire."""
    match packet:
        case Data(block, payload):
            return _HEADER.pack(Opcode.DATA, block) + payload
        case Ack(block):
            return _HEADER.pack(Opcode.ACK, block)
        case Error(code, message):
            return _HEADER.pack(Opcode.ERROR, code) + _texts(message)
        case OptionAck(options):
            return _opcode(Opcode.OACK) + _pairs(options)
        case ReadRequest(name, mode, options):
            return _opcode(Opcode.RRQ) + _texts(name, mode) + _pairs(options)
        case WriteRequest(name, mode, options):
            return _opcode(Opcode.WRQ) + _texts(name, mode) + _pairs(options)


def decode(data: bytes) -> Packet:
    """Read one datagram. Raises MalformedPacket.

    Bytes after an ACK's block number and after an ERROR's text are ignored, and an ERROR may lack its text or
    the NUL behind it: clients do that, and nothing is gained by refusing them.
    """
    if len(data) < 4:
        raise MalformedPacket(f"{len(data)} bytes are no TFTP packet")
    opcode, number = _HEADER.unpack_from(data)
    match opcode:
        case Opcode.ACK:
            return Ack(number)
        case Opcode.DATA:
            return Data(number, data[4:])
        case Opcode.ERROR:
            return Error(number, _text(data[4:].partition(b"\0")[0]))
        case Opcode.OACK:
            return OptionAck(_options(data[2:].split(b"\0")[:-1]))
        case Opcode.RRQ:
            return ReadRequest(*_request(data[2:]))
        case Opcode.WRQ:
            return WriteRequest(*_request(data[2:]))
    raise MalformedPacket(f"opcode {opcode} is not defined")


def _request(body: bytes) -> tuple[str, str, dict[str, str]]:
    """Name, mode and options. Only the name and the mode can spoil a request; see `_options`."""
    if len(body) > MAX_REQUEST:
        raise MalformedPacket(f"a request of {len(body)} bytes")
    name, *rest = body.split(b"\0")
    if len(rest) < 2:
        raise MalformedPacket("a request without name and mode, each ended by NUL")
    try:
        text = name.decode()
    except UnicodeDecodeError as error:
        raise MalformedPacket("a name that is not UTF-8") from error
    if not text.isprintable() or not text:  # it will stand in logs, on terminals and in the store
        raise MalformedPacket(f"a name that cannot be printed: {text!r}")
    return text, _text(rest[0]).lower(), _options(rest[1:-1])


def _options(texts: list[bytes]) -> dict[str, str]:
    """Name and value pairs. A torn pair at the end, padding and repeats are ignored: options are optional.

    Source: RFC 2347 ("The maximum size of a request packet is 512 octets", names in any case, each once).
    """
    options: dict[str, str] = {}
    for name, value in zip(texts[::2], texts[1::2], strict=False):
        if name:
            options.setdefault(_text(name).lower(), _text(value))
    return options


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")


def _opcode(opcode: Opcode) -> bytes:
    return opcode.to_bytes(2, "big")


def _texts(*texts: str) -> bytes:
    if any("\0" in text for text in texts):
        raise ValueError(f"a NUL in {texts!r}")
    return b"".join(text.encode() + b"\0" for text in texts)


def _pairs(options: Mapping[str, str]) -> bytes:
    return b"".join(_texts(name, value) for name, value in options.items())
