"""Ends iPXE's wait for an IPv6 router.

iPXE configures IPv4 and IPv6 side by side and goes on when both have an answer. Where no router answers, it
repeats its solicitation for 16 s after DHCP is done: the longest part of many a boot. We answer that there
is no router, and only to machines whose firmware or loader we are talking to at that moment.
"""

import asyncio
import logging
import socket
import struct

from pxeboot.errors import MalformedPacket
from pxeboot.inventory.boot import BEFORE_KERNEL_RUNS
from pxeboot.inventory.store import Store
from pxeboot.ndp.packet import ROUTER_SOLICITATION, decode_solicitation, encode_no_router
from pxeboot.tasks import Tasks

log = logging.getLogger(__name__)

MAX_WAITING = 1024
_ALL_ROUTERS = "ff02::2"
_ICMP6_FILTER = 1  # linux/icmpv6.h; Python's socket module has no name for it
_HOP_LIMIT = 255  # RFC 4861 §4.2: proof that no router has passed it on

Peer = tuple[str, int, int, int]


class RouterAnswers:
    """Answers router solicitations on one interface."""

    def __init__(self, interface: str, store: Store) -> None:
        self._interface = interface
        self._store = store
        self._tasks = Tasks()
        self._socket: socket.socket | None = None

    async def start(self) -> None:
        """Listen. Where the interface has no IPv6 nothing is answered: boots then only take longer."""
        try:
            self._socket = _open(self._interface)
        except OSError as error:
            log.info("no IPv6 on %s (%s): iPXE will wait there for a router in vain", self._interface, error)
            return
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._readable, self._socket)

    async def close(self) -> None:
        """Stop answering."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
        await self._tasks.close()
        if self._socket is not None:
            self._socket.close()

    def _readable(self, opened: socket.socket) -> None:
        try:
            data, peer = opened.recvfrom(1500)
        except OSError:
            return  # nothing there after all, or the interface is going away
        if len(self._tasks) < MAX_WAITING:
            self._tasks.spawn(self._answer(opened, data, peer), "router solicitation")

    async def _answer(self, opened: socket.socket, data: bytes, peer: Peer) -> None:
        try:
            mac = decode_solicitation(data)
        except MalformedPacket as error:
            log.debug("dropped a packet from %s: %s", peer[0], error)
            return
        boot = await self._store.boot(mac)
        if boot is None or boot.stage not in BEFORE_KERNEL_RUNS:
            return
        try:
            opened.sendto(encode_no_router(), peer)
        except OSError as error:
            log.debug("%s: no answer to its router solicitation: %s", mac, error)


def _open(interface: str) -> socket.socket:
    opened = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    try:
        opened.setblocking(False)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, _HOP_LIMIT)
        blocked = bytearray(b"\xff" * 32)  # a bit for each ICMPv6 type: set, it is not delivered
        blocked[ROUTER_SOLICITATION // 32 * 4 : ROUTER_SOLICITATION // 32 * 4 + 4] = struct.pack(
            "=I", 0xFFFFFFFF & ~(1 << ROUTER_SOLICITATION % 32)
        )
        opened.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, bytes(blocked))
        group = socket.inet_pton(socket.AF_INET6, _ALL_ROUTERS) + struct.pack(
            "=I", socket.if_nametoindex(interface)
        )
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group)
    except OSError:
        opened.close()
        raise
    return opened
