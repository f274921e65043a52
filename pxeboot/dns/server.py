"""The sockets of DNS, UDP and TCP, and the answers kept as bytes."""

import asyncio
import logging
import socket
from collections.abc import Callable
from ipaddress import IPv4Address

from pxeboot.dns.forward import Forwarder
from pxeboot.dns.message import Query, respond
from pxeboot.dns.zone import Zone
from pxeboot.errors import MalformedPacket, PxebootError
from pxeboot.tasks import Tasks

log = logging.getLogger(__name__)

DNS_PORT = 53
BATCH = 64
"""Datagrams answered at one wake-up before others have their turn."""
RECEIVE_BUFFER_BYTES = 4 << 20
MAX_READY = 20_000
"""Answers kept as bytes; when there are more, all are made anew."""
MAX_CONNECTIONS = 100
IDLE_SECONDS = 10.0
"""RFC 7766 §6.2.3: some seconds; clients reconnect."""


class DnsServer:
    """Answers at one of our addresses.

    An answer of the zone is the same bytes for the same query but for its id, so it is kept by the query's
    bytes without it and costs one look-up the next time. All are forgotten when the zone is another.
    """

    def __init__(
        self,
        address: IPv4Address,
        zone: Callable[[], Zone],
        allowed: Callable[[IPv4Address], bool],
        forwarder: Forwarder,
        port: int = DNS_PORT,
    ) -> None:
        """`allowed` says whether a client may ask; others get no answer at all."""
        self._address = address
        self._zone = zone
        self._allowed = allowed
        self._forwarder = forwarder
        self.port = port
        self._ready: dict[bytes, bytes] = {}
        self._ready_of: Zone | None = None
        self._clients: dict[str, bool] = {}
        self._tasks = Tasks()
        self._udp: socket.socket | None = None
        self._tcp: asyncio.Server | None = None
        self._connections = 0

    async def start(self) -> None:
        """Bind both. Raises PxebootError."""
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.setblocking(False)
        self._udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        try:
            self._udp.bind((str(self._address), self.port))
            self.port = self._udp.getsockname()[1]
            self._tcp = await asyncio.start_server(self._connected, str(self._address), self.port)
        except OSError as error:
            self._udp.close()
            self._udp = None
            raise PxebootError(
                f"DNS at {self._address} port {self.port}: {error.strerror}",
                f"`ss -lntup 'sport = :{self.port}'` names who has it: stop that, or leave [dns] out",
            ) from error
        asyncio.get_running_loop().add_reader(self._udp.fileno(), self._readable, self._udp)
        log.info("DNS on %s:%d", self._address, self.port)

    async def close(self) -> None:
        """Stop answering."""
        if self._udp is not None:
            asyncio.get_running_loop().remove_reader(self._udp.fileno())
            self._udp.close()
        if self._tcp is not None:
            self._tcp.close()
        await self._tasks.close()

    def _readable(self, udp: socket.socket) -> None:
        zone = self._zone()
        if zone is not self._ready_of or len(self._ready) > MAX_READY:
            self._ready, self._ready_of = {}, zone
        for _ in range(BATCH):
            try:
                data, peer = udp.recvfrom(4096)
            except OSError:
                return  # nothing more, or an ICMP error of an earlier answer
            if not self._may_ask(peer[0]):
                continue
            ready = self._ready.get(data[2:])
            if ready is None:
                self._answer_udp(udp, data, peer, zone)
            else:
                _send(udp, data[:2] + ready, peer)

    def _answer_udp(self, udp: socket.socket, data: bytes, peer: tuple[str, int], zone: Zone) -> None:
        try:
            response = respond(data, zone, tcp=False, recursive=self._forwarder.asks_others)
        except MalformedPacket as error:
            log.debug("dropped a datagram from %s: %s", peer[0], error)
            return
        if isinstance(response, Query):
            self._tasks.spawn(self._forward_udp(udp, response, peer), "DNS query")
            return
        self._ready[data[2:]] = response[2:]
        _send(udp, response, peer)

    async def _forward_udp(self, udp: socket.socket, query: Query, peer: tuple[str, int]) -> None:
        _send(udp, await self._forwarder.answer(query), peer)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")[0]
        if self._may_ask(peer) and self._connections < MAX_CONNECTIONS:
            self._connections += 1
            await self._tasks.spawn(self._converse(reader, writer), "DNS connection")
            self._connections -= 1
        writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One query after the other, each after its length (RFC 1035 §4.2.2), until the client is silent."""
        try:
            while True:
                async with asyncio.timeout(IDLE_SECONDS):
                    size = int.from_bytes(await reader.readexactly(2), "big")
                    data = await reader.readexactly(size)
                response = respond(data, self._zone(), tcp=True, recursive=self._forwarder.asks_others)
                if isinstance(response, Query):
                    response = await self._forwarder.answer(response)
                writer.write(len(response).to_bytes(2, "big") + response)
                async with asyncio.timeout(IDLE_SECONDS):
                    await writer.drain()
        except (asyncio.IncompleteReadError, TimeoutError, OSError, MalformedPacket) as error:
            log.debug("a DNS connection ends: %s", error or "silence")

    def _may_ask(self, address: str) -> bool:
        known = self._clients.get(address)
        if known is None:
            if len(self._clients) > MAX_READY:
                self._clients.clear()
            known = self._clients[address] = self._allowed(IPv4Address(address))
        return known


def _send(udp: socket.socket, data: bytes, peer: tuple[str, int]) -> None:
    try:
        udp.sendto(data, peer)
    except OSError as error:
        log.debug("%s: no answer sent: %s", peer[0], error)
