"""The kernel's IPVS table: read it, change it. The only module that speaks to it.

Netlink blocks for as long as the kernel takes for a thousand servers, so everything here runs in one thread
of its own, with a socket that was opened there. Many changes go in one send, as a round trip each would cost
more than the work. pyroute2 finds the family's number; the messages are in `wire`.

Source: include/uapi/linux/netlink.h, Documentation/userspace-api/netlink/intro.rst.
"""

import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator, Sequence

from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.generic import GenericNetlinkSocket, ipvs

from pxeboot.balancer import wire
from pxeboot.balancer.plan import Change
from pxeboot.balancer.table import Counts, Entry, Real, RealId, ServiceKey, Traffic
from pxeboot.errors import PxebootError

BATCH = 64
"""Messages in one send: their acknowledgements must fit into the socket's buffer."""
ANSWER_SECONDS = 10.0
"""The kernel answers at once; nobody waits for ever should it not."""
MODPROBE_SECONDS = 20.0
MODULE_HINT = "load it: modprobe ip_vs; a kernel built without CONFIG_IP_VS must be replaced, by Debian's say"

_NETLINK_GENERIC = 16
_SOL_NETLINK, _CAP_ACK = 270, 10
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_ERROR, _DONE = 2, 3
_HEADER = struct.Struct("=IHHII")
_GENERIC_HEADER = 4  # struct genlmsghdr
_ERRNO = struct.Struct("=i")
_LARGEST = 65536
"""Of what one read gives: the kernel fills 32 KiB."""


def load() -> None:
    """Have the kernel load IPVS, where it has it as a module. Raises PxebootError with the remedy."""
    if _family() is not None:
        return
    program = _modprobe()
    told = "there is no modprobe (apt-get install kmod)"
    if program is not None:
        told = _run([program, "ip_vs"])[1] or "modprobe ip_vs loaded nothing"
    if _family() is None:
        raise PxebootError(f"this kernel has no IPVS: {told}", MODULE_HINT)


def look() -> str:
    """Whether the kernel has IPVS or can load it, without loading it. Raises PxebootError with the remedy."""
    if _family() is not None:
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


def _family() -> int | None:
    """The number of the kernel's generic netlink family for IPVS; None: it has none."""
    generic = GenericNetlinkSocket()
    try:
        generic.bind(wire.FAMILY, ipvs.ipvsmsg)
        return int(generic.prid)
    except NetlinkError:
        return None
    finally:
        generic.close()


class _Socket:
    """Requests to one generic netlink family, as bytes from the generic header on. All methods block."""

    def __init__(self, family: int) -> None:
        self._family = family
        self._sequence = 0
        self._line = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_GENERIC)
        self._line.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)  # an error does not bring the whole request back
        self._line.settimeout(ANSWER_SECONDS)
        self._line.bind((0, 0))

    def close(self) -> None:
        self._line.close()

    def dump(self, request: bytes) -> list[bytes]:
        """What follows the generic header in each answer. Raises OSError."""
        self._line.send(self._framed(request, _REQUEST | _DUMP))
        found = []
        while True:
            for kind, sequence, body in _messages(self._line.recv(_LARGEST)):
                if sequence != self._sequence:
                    continue  # of an earlier dump, which was given up
                if kind == self._family:
                    found.append(body[_GENERIC_HEADER:])
                    continue
                code = _ERRNO.unpack_from(body)[0]
                if code < 0:
                    raise OSError(-code, os.strerror(-code))
                if kind == _DONE:
                    return found

    def exchange(self, requests: Sequence[bytes]) -> list[int]:
        """Send them together; the error number of each, 0 where it was done. Raises OSError."""
        first = self._sequence + 1
        self._line.send(b"".join(self._framed(request, _REQUEST | _ACK) for request in requests))
        errors: dict[int, int] = {}
        while len(errors) < len(requests):
            for kind, sequence, body in _messages(self._line.recv(_LARGEST)):
                if kind == _ERROR and sequence >= first:
                    errors[sequence] = -_ERRNO.unpack_from(body)[0]
        return [errors[sequence] for sequence in range(first, first + len(requests))]

    def _framed(self, body: bytes, flags: int) -> bytes:
        self._sequence += 1
        return _HEADER.pack(_HEADER.size + len(body), self._family, flags, self._sequence, 0) + body


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Type, sequence number and body of each message."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, _, sequence, _ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size:
            return
        yield kind, sequence, data[offset + _HEADER.size : offset + length]
        offset += (length + 3) & ~3


class Kernel:
    """The table of this network namespace. All methods block; use it in one thread."""

    def __init__(self) -> None:
        """`load` first. Raises PxebootError where the kernel has no IPVS."""
        family = _family()
        if family is None:
            raise PxebootError("this kernel has no IPVS", MODULE_HINT)
        self._socket = _Socket(family)
        self._servers: dict[ServiceKey, wire.Servers] = {}

    def close(self) -> None:
        """Let go of the socket; the table stays."""
        self._socket.close()

    def table(self, *, traffic: bool = False) -> dict[ServiceKey, Entry]:
        """All services and their servers, with connection counts, and where asked for what passed through."""
        found: dict[ServiceKey, Entry] = {}
        known, self._servers = self._servers, {}
        for message in self._socket.dump(wire.ask_for_services()):
            virtual, total = wire.decode_service(message)
            key = virtual.key
            decoder = self._servers[key] = known.get(key) or wire.Servers(key.version)
            messages = self._socket.dump(wire.ask_for_servers(key))
            reals: dict[RealId, Real] = {}
            counts: dict[RealId, Counts] = {}
            passed: dict[RealId, Traffic] = {}
            for server, (real, count) in zip(messages, decoder.decode(messages), strict=True):
                name = real.id
                reals[name], counts[name] = real, count
                if traffic:
                    passed[name] = wire.decode_server_traffic(server)
            found[key] = Entry(virtual, reals, counts, total, passed)
        return found

    def apply(self, changes: Sequence[Change]) -> list[tuple[Change, str]]:
        """Make the changes, in order; those the kernel refused, and in what words. The others are made."""
        refused: list[tuple[Change, str]] = []
        for start in range(0, len(changes), BATCH):
            batch = changes[start : start + BATCH]
            errors = self._socket.exchange([wire.encode(change) for change in batch])
            refused += [
                (change, os.strerror(error)) for change, error in zip(batch, errors, strict=True) if error
            ]
        return refused
