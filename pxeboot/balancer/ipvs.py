"""The kernel's IPVS table through pyroute2: read it, change it. The only module that speaks to it.

Netlink blocks for as long as the kernel takes for a thousand servers, so everything here runs in one thread
of its own, with a socket that was opened there. Many changes go in one send, as a round trip each would cost
more than the work; a dump is read straight from the attributes, since pyroute2 makes objects of them (for a
thousand servers in User Mode Linux 65 ms, against 25 ms).

pyroute2's "update" deletes: commands are numbers here. Source: net/netfilter/ipvs/ip_vs_ctl.c.
"""

import logging
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Any, cast

from pyroute2 import IPVS
from pyroute2.ipvs import AsyncIPVS
from pyroute2.netlink import NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.generic import GenericNetlinkSocket
from pyroute2.netlink.generic import ipvs as wire
from pyroute2.netlink.nlsocket import NetlinkRequest

from pxeboot.balancer.plan import Change, Verb
from pxeboot.balancer.service import Address, Forward
from pxeboot.balancer.table import FLAGS, Counts, Entry, Real, RealId, ServiceKey, Traffic, Virtual
from pxeboot.errors import PxebootError

log = logging.getLogger(__name__)

BATCH = 64
"""Messages in one send: their acknowledgements must fit into the socket's buffer."""
MODPROBE_SECONDS = 20.0
MODULE_HINT = "load it: modprobe ip_vs; a kernel built without CONFIG_IP_VS must be replaced, by Debian's say"

_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
_PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP, "sctp": socket.IPPROTO_SCTP}
_PROTOCOL_NAMES = {number: name for name, number in _PROTOCOLS.items()}
_METHODS: dict[Forward, int] = {"nat": 0, "tun": 2, "dr": 3}  # IP_VS_CONN_F_MASQ, _TUNNEL, _DROUTE
_METHOD_NAMES = {number: name for name, number in _METHODS.items()}
_METHOD_MASK = 0x7
_COMMANDS = {
    (Verb.ADD, False): wire.IPVS_CMD_NEW_SERVICE,
    (Verb.SET, False): wire.IPVS_CMD_SET_SERVICE,
    (Verb.DELETE, False): wire.IPVS_CMD_DEL_SERVICE,
    (Verb.ADD, True): wire.IPVS_CMD_NEW_DEST,
    (Verb.SET, True): wire.IPVS_CMD_SET_DEST,
    (Verb.DELETE, True): wire.IPVS_CMD_DEL_DEST,
}
_GENERIC_HEADER = 4  # struct genlmsghdr
_U16, _U32 = struct.Struct("=H"), struct.Struct("=I")
_PORT = struct.Struct(">H")


def load() -> None:
    """Have the kernel load IPVS, where it has it as a module. Raises PxebootError with the remedy."""
    if _is_there():
        return
    program = _modprobe()
    told = "there is no modprobe (apt-get install kmod)"
    if program is not None:
        told = _run([program, "ip_vs"])[1] or "modprobe ip_vs loaded nothing"
    if not _is_there():
        raise PxebootError(f"this kernel has no IPVS: {told}", MODULE_HINT)


def look() -> str:
    """Whether the kernel has IPVS or can load it, without loading it. Raises PxebootError with the remedy."""
    if _is_there():
        return "in the kernel"
    program = _modprobe()
    if program is None:
        raise PxebootError("IPVS is not in the kernel, and there is no modprobe", "apt-get install kmod")
    good, told = _run([program, "-n", "ip_vs"])
    if not good:
        raise PxebootError(f"this kernel has no IPVS: {told}", MODULE_HINT)
    return "a module of this kernel"


def _run(command: Sequence[str]) -> tuple[bool, str]:
    """Whether it ended well, and what it said on stderr."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=MODPROBE_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return False, f"{command[0]} does not end"
    return done.returncode == 0, done.stderr.strip()


def _modprobe() -> str | None:
    return shutil.which("modprobe", path="/usr/sbin:/sbin:/usr/bin:/bin")


def _is_there() -> bool:
    generic = GenericNetlinkSocket()  # an IPVS() that fails leaves its socket open
    try:
        generic.bind(wire.GENL_NAME, wire.ipvsmsg)
    except NetlinkError:
        return False
    finally:
        generic.close()
    return True


class _Socket(AsyncIPVS):  # type: ignore[misc]  # pyroute2 has no types
    """pyroute2's socket, and what it lacks: raw dumps, and batches whose every answer is told."""

    async def dump(self, command: int, attributes: list[Any]) -> list[bytes]:
        """The attributes of each object, as they came."""
        message = _message(command, attributes)
        request = NetlinkRequest(
            self, message, parser=self._raw, msg_type=self.prid, msg_flags=NLM_F_REQUEST | NLM_F_DUMP
        )
        await request.send()
        return [cast(bytes, item["raw"]) async for item in request.response()]

    def _raw(self, data: bytes, offset: int, length: int) -> Any:
        kind, flags, sequence = struct.unpack_from("=HHI", data, offset + 4)
        if kind != self.prid:
            return self.marshal.parse_one_message(kind, flags, sequence, data, offset, length)
        header = {"type": kind, "flags": flags, "error": None}
        return {"header": header, "raw": data[offset + 16 + _GENERIC_HEADER : offset + length]}

    async def exchange(self, messages: Sequence[Any]) -> list[NetlinkError | None]:
        """Send them together; the error of each, None where it was done."""
        requests = [
            NetlinkRequest(self, message, msg_type=self.prid, msg_flags=NLM_F_REQUEST | NLM_F_ACK)
            for message in messages
        ]
        for request in requests:
            await request.prepare()
        self.send(b"".join(request.msg.data for request in requests))
        return [await self._answer(request) for request in requests]

    async def _answer(self, request: NetlinkRequest) -> NetlinkError | None:
        try:
            async for _ in request.response():
                pass
        except NetlinkError as error:
            return error
        return None


class _Blocking(IPVS):  # type: ignore[misc]
    async_class = _Socket

    def run(self, work: Any) -> Any:
        return self._run_with_cleanup(lambda: work)


class Kernel:
    """The table of this network namespace. All methods block; use it in one thread."""

    def __init__(self) -> None:
        """`load` first. Raises PxebootError where the kernel has no IPVS."""
        if not _is_there():
            raise PxebootError("this kernel has no IPVS", MODULE_HINT)
        self._socket = _Blocking()

    def close(self) -> None:
        """Let go of the socket; the table stays."""
        self._socket.close()

    def table(self, *, traffic: bool = False) -> dict[ServiceKey, Entry]:
        """All services and their servers, with connection counts, and where asked for what passed through."""
        found: dict[ServiceKey, Entry] = {}
        for raw in self._dump(wire.IPVS_CMD_GET_SERVICE, []):
            attributes = dict(_attributes(_nested(raw, 1)))
            virtual = _virtual(attributes)
            reals: dict[RealId, Real] = {}
            counts: dict[RealId, Counts] = {}
            passed: dict[RealId, Traffic] = {}
            key = ("IPVS_CMD_ATTR_SERVICE", {"attrs": _key(virtual.key)})
            for item in self._dump(wire.IPVS_CMD_GET_DEST, [key]):
                fields = dict(_attributes(_nested(item, 2)))
                real = _real(fields, virtual.key.version)
                reals[real.id], counts[real.id] = real, _counts(fields)
                if traffic:
                    passed[real.id] = _traffic(fields.get(12, b""))
            total = _traffic(attributes.get(12, b"")) if traffic else Traffic()
            found[virtual.key] = Entry(virtual, reals, counts, total, passed)
        return found

    def apply(self, changes: Sequence[Change]) -> list[tuple[Change, str]]:
        """Make the changes, in order; those the kernel refused, and in what words. The others are made."""
        refused: list[tuple[Change, str]] = []
        for start in range(0, len(changes), BATCH):
            batch = changes[start : start + BATCH]
            errors = self._socket.run(self._socket.asyncore.exchange([_encode(change) for change in batch]))
            refused += [
                (change, f"{error.args[1] if len(error.args) > 1 else error}")
                for change, error in zip(batch, errors, strict=True)
                if error is not None
            ]
        return refused

    def _dump(self, command: int, attributes: list[Any]) -> list[bytes]:
        return cast(list[bytes], self._socket.run(self._socket.asyncore.dump(command, attributes)))


def _message(command: int, attributes: list[Any]) -> Any:
    message = wire.ipvsmsg()
    message["cmd"] = command
    message["version"] = wire.GENL_VERSION
    message["attrs"] = attributes
    return message


def _encode(change: Change) -> Any:
    """The message of one change."""
    whole = change.real is None and change.verb is not Verb.DELETE
    service = _service(change.virtual) if whole else _key(change.virtual.key)
    attributes = [("IPVS_CMD_ATTR_SERVICE", {"attrs": service})]
    if change.real is not None:
        attributes.append(("IPVS_CMD_ATTR_DEST", {"attrs": _dest(change.real)}))
    return _message(_COMMANDS[change.verb, change.real is not None], attributes)


def _key(key: ServiceKey) -> list[tuple[str, Any]]:
    family = ("IPVS_SVC_ATTR_AF", int(_FAMILY[key.version]))
    if key.mark:
        return [family, ("IPVS_SVC_ATTR_FWMARK", key.mark)]
    return [
        family,
        ("IPVS_SVC_ATTR_PROTOCOL", int(_PROTOCOLS[key.protocol])),
        ("IPVS_SVC_ATTR_ADDR", str(key.address)),
        ("IPVS_SVC_ATTR_PORT", key.port),
    ]


def _service(virtual: Virtual) -> list[tuple[str, Any]]:
    return [
        *_key(virtual.key),
        ("IPVS_SVC_ATTR_SCHED_NAME", virtual.scheduler),
        ("IPVS_SVC_ATTR_FLAGS", {"flags": virtual.flags, "mask": 0xFFFFFFFF}),
        ("IPVS_SVC_ATTR_TIMEOUT", virtual.timeout),
        ("IPVS_SVC_ATTR_NETMASK", _netmask(virtual)),
    ]


def _netmask(virtual: Virtual) -> str:
    """A mask for IPv4; for IPv6 the prefix as a number, which pyroute2 can only write as an address."""
    if virtual.key.version == 6:
        return socket.inet_ntoa(_U32.pack(virtual.prefix))
    return str(IPv4Address((0xFFFFFFFF << (32 - virtual.prefix)) & 0xFFFFFFFF))


def _dest(real: Real) -> list[tuple[str, Any]]:
    return [
        ("IPVS_DEST_ATTR_ADDR_FAMILY", int(_FAMILY[real.address.version])),
        ("IPVS_DEST_ATTR_ADDR", str(real.address)),
        ("IPVS_DEST_ATTR_PORT", real.port),
        ("IPVS_DEST_ATTR_FWD_METHOD", _METHODS[real.forward]),
        ("IPVS_DEST_ATTR_WEIGHT", real.weight),
        ("IPVS_DEST_ATTR_U_THRESH", real.upper),
        ("IPVS_DEST_ATTR_L_THRESH", real.lower),
    ]


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and payload of each attribute (struct nlattr: length with header, type, padded to 4)."""
    offset = 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4:
            return
        yield kind & 0x3FFF, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def _nested(data: bytes, wanted: int) -> bytes:
    return next(payload for kind, payload in _attributes(data) if kind == wanted)


def _address(payload: bytes, version: int) -> Address:
    return IPv4Address(payload[:4]) if version == 4 else IPv6Address(payload[:16])


def _u32(fields: dict[int, bytes], kind: int) -> int:
    return cast(int, _U32.unpack_from(fields[kind])[0]) if kind in fields else 0


def _virtual(fields: dict[int, bytes]) -> Virtual:
    version = 4 if _U16.unpack_from(fields[1])[0] == socket.AF_INET else 6
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
    """The family of a server differs from its service's only with tunnels."""
    if 11 in fields:
        version = 4 if _U16.unpack_from(fields[11])[0] == socket.AF_INET else 6
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


def _traffic(payload: bytes) -> Traffic:
    """IPVS_*_ATTR_STATS64: ten numbers of 64 bits."""
    fields = {kind: int.from_bytes(data[:8], sys.byteorder) for kind, data in _attributes(payload)}
    return Traffic(*(fields.get(kind, 0) for kind in range(1, 11)))
