"""IPVS's messages as bytes: changes are encoded, dumps decoded. Pure.

pyroute2 makes an object of every attribute, 300 us for a change and 35 us for a server of a dump; with a
thousand servers that is what a round would cost, so this is our own.

Source: include/uapi/linux/ip_vs.h, net/netfilter/ipvs/ip_vs_ctl.c (ip_vs_genl_*).
"""

import struct
import sys
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import cast

from pxeboot.balancer.plan import Change, Verb
from pxeboot.balancer.service import Address, Forward
from pxeboot.balancer.table import FLAGS, Counts, Real, ServiceKey, Traffic, Virtual

FAMILY = "IPVS"
_VERSION = 1
_GET_SERVICE, _GET_DEST = 4, 8
_COMMANDS = {
    (Verb.ADD, False): 1,
    (Verb.SET, False): 2,
    (Verb.DELETE, False): 3,
    (Verb.ADD, True): 5,
    (Verb.SET, True): 6,
    (Verb.DELETE, True): 7,
}
_SERVICE, _DEST = 1, 2  # attributes of a command

_AF = {4: 2, 6: 10}  # AF_INET, AF_INET6 (linux/socket.h)
_VERSIONS = {number: version for version, number in _AF.items()}
_PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}
_PROTOCOL_NAMES = {number: name for name, number in _PROTOCOLS.items()}
_METHODS: dict[Forward, int] = {"nat": 0, "tun": 2, "dr": 3}  # IP_VS_CONN_F_MASQ, _TUNNEL, _DROUTE
_METHOD_NAMES = {number: name for name, number in _METHODS.items()}
_METHOD_MASK = 0x7

_NESTED = 0x8000
_KIND_MASK = 0x3FFF
_HEADER = struct.Struct("=HH")
_GENERIC = struct.Struct("=BBH")
_U16, _U32, _PAIR = struct.Struct("=H"), struct.Struct("=I"), struct.Struct("=II")
_PORT = struct.Struct(">H")
_ADDRESS_BYTES = 16
_STATS, _STATS64 = 10, 12


def encode(change: Change) -> bytes:
    """The message of one change, from its generic header on."""
    whole = change.real is None and change.verb is not Verb.DELETE
    service = _service(change.virtual) if whole else _key(change.virtual.key)
    body = _attribute(_SERVICE | _NESTED, service)
    if change.real is not None:
        body += _attribute(_DEST | _NESTED, _dest(change.real))
    return _GENERIC.pack(_COMMANDS[change.verb, change.real is not None], _VERSION, 0) + body


def ask_for_services() -> bytes:
    """The message that asks for all services."""
    return _GENERIC.pack(_GET_SERVICE, _VERSION, 0)


def ask_for_servers(key: ServiceKey) -> bytes:
    """The message that asks for the servers of a service."""
    return _GENERIC.pack(_GET_DEST, _VERSION, 0) + _attribute(_SERVICE | _NESTED, _key(key))


def _attribute(kind: int, payload: bytes) -> bytes:
    """struct nlattr: length with header, type, payload padded to 4."""
    return _HEADER.pack(4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


def _key(key: ServiceKey) -> bytes:
    family = _attribute(1, _U16.pack(_AF[key.version]))
    if key.mark:
        return family + _attribute(5, _U32.pack(key.mark))
    assert key.address is not None  # who has no mark has an address
    return (
        family
        + _attribute(2, _U16.pack(_PROTOCOLS[key.protocol]))
        + _attribute(3, key.address.packed.ljust(_ADDRESS_BYTES, b"\0"))
        + _attribute(4, _PORT.pack(key.port))
    )


def _service(virtual: Virtual) -> bytes:
    return (
        _key(virtual.key)
        + _attribute(6, virtual.scheduler.encode() + b"\0")
        + _attribute(7, _PAIR.pack(virtual.flags, 0xFFFFFFFF))
        + _attribute(8, _U32.pack(virtual.timeout))
        + _attribute(9, _netmask(virtual))
    )


def _netmask(virtual: Virtual) -> bytes:
    """A mask for IPv4; for IPv6 the prefix as a number."""
    if virtual.key.version == 6:
        return _U32.pack(virtual.prefix)
    return ((0xFFFFFFFF << (32 - virtual.prefix)) & 0xFFFFFFFF).to_bytes(4, "big")


def _dest(real: Real) -> bytes:
    numbers = (_METHODS[real.forward], real.weight, real.upper, real.lower)
    return (
        _attribute(11, _U16.pack(_AF[real.address.version]))
        + _attribute(1, real.address.packed.ljust(_ADDRESS_BYTES, b"\0"))
        + _attribute(2, _PORT.pack(real.port))
        + b"".join(_attribute(kind, _U32.pack(value)) for kind, value in enumerate(numbers, 3))
    )


def decode_service(message: bytes) -> tuple[Virtual, Traffic]:
    """A service of a dump; `message` is what follows the generic header."""
    fields = dict(attributes(_nested(message, _SERVICE)))
    return _virtual(fields), _traffic(fields)


Server = tuple[Real, Counts]


class Servers:
    """The servers of one service, dump after dump: what has not changed is not decoded again.

    A server's statistics come last and are left out of the comparison.
    """

    def __init__(self, version: int) -> None:
        """`version`: of the service's addresses; a server's own is another only with tunnels."""
        self._version = version
        self._known: dict[bytes, Server] = {}

    def decode(self, messages: Sequence[bytes]) -> list[Server]:
        """All of a dump."""
        known, self._known = self._known, {}
        end = _end_of_facts(messages[0]) if messages else 0
        header = messages[0][end : end + 4] if messages else b""
        found = []
        for message in messages:
            facts = message[:end] if message[end : end + 4] == header else message
            server = known.get(facts) or self._server(message)
            self._known[facts] = server
            found.append(server)
        return found

    def _server(self, message: bytes) -> Server:
        fields = dict(attributes(_nested(message, _DEST)))
        return _real(fields, self._version), _counts(fields)


def decode_server_traffic(message: bytes) -> Traffic:
    """What passed through a server of a dump."""
    return _traffic(dict(attributes(_nested(message, _DEST))))


def _end_of_facts(message: bytes) -> int:
    """Where the statistics begin, which in every kernel so far nothing follows; else the message's end."""
    offset, end = 4, len(message)
    while offset + 4 <= len(message):
        length, kind = _HEADER.unpack_from(message, offset)
        if kind & _KIND_MASK in (_STATS, _STATS64):
            end = min(end, offset)
        elif end < len(message) or length < 4:
            return len(message)
        offset += (length + 3) & ~3
    return end


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and payload of each attribute."""
    offset = 0
    while offset + 4 <= len(data):
        length, kind = _HEADER.unpack_from(data, offset)
        if length < 4:
            return
        yield kind & _KIND_MASK, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def _nested(data: bytes, wanted: int) -> bytes:
    return next(payload for kind, payload in attributes(data) if kind == wanted)


def _address(payload: bytes, version: int) -> Address:
    return IPv4Address(payload[:4]) if version == 4 else IPv6Address(payload[:_ADDRESS_BYTES])


def _u32(fields: dict[int, bytes], kind: int) -> int:
    return cast(int, _U32.unpack_from(fields[kind])[0]) if kind in fields else 0


def _virtual(fields: dict[int, bytes]) -> Virtual:
    version = _VERSIONS[_U16.unpack_from(fields[1])[0]]
    mark = _u32(fields, 5)
    if mark:
        key = ServiceKey(version, mark=mark)
    else:
        number = _U16.unpack_from(fields[2])[0]
        key = ServiceKey(
            version,
            _PROTOCOL_NAMES.get(number, str(number)),
            _address(fields[3], version),
            _PORT.unpack_from(fields[4])[0],
        )
    netmask = fields[9]
    prefix = _u32(fields, 9) if version == 6 else int.from_bytes(netmask, "big").bit_count()
    return Virtual(
        key,
        fields[6].rstrip(b"\0").decode("ascii", "replace"),
        _u32(fields, 7) & FLAGS,
        _u32(fields, 8),
        prefix,
    )


def _real(fields: dict[int, bytes], version: int) -> Real:
    if 11 in fields:
        version = _VERSIONS[_U16.unpack_from(fields[11])[0]]
    method = cast(Forward, _METHOD_NAMES.get(_u32(fields, 3) & _METHOD_MASK, "local"))
    return Real(
        _address(fields[1], version),
        _PORT.unpack_from(fields[2])[0],
        method,
        _u32(fields, 4),
        _u32(fields, 5),
        _u32(fields, 6),
    )


def _counts(fields: dict[int, bytes]) -> Counts:
    return Counts(_u32(fields, 7), _u32(fields, 8), _u32(fields, 9))


def _traffic(fields: dict[int, bytes]) -> Traffic:
    """IPVS_*_ATTR_STATS64: ten numbers of 64 bits."""
    numbers = {
        kind: int.from_bytes(data[:8], sys.byteorder) for kind, data in attributes(fields.get(_STATS64, b""))
    }
    return Traffic(*(numbers.get(kind, 0) for kind in range(1, 11)))
