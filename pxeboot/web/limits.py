"""What one client may take of us: connections, time, and reports. RFC 9110 leaves all of it to servers."""

import asyncio
import logging
import socket
import ssl
from collections import Counter, OrderedDict
from collections.abc import Callable

from aiohttp import web

from pxeboot.mac import Mac
from pxeboot.preflight import port_error
from pxeboot.tasks import Tasks
from pxeboot.web.faults import http_log

log = logging.getLogger(__name__)

IDLE_SECONDS = 15.0
"""From a connection's begin, or its last answer, to the end of the next request's headers."""
BODY_SECONDS = 10.0
"""For a report's body: a node sends it at once."""
UNREAD_SECONDS = 30.0
"""A client that is gone, or reads nothing, loses its connection (tcp(7), TCP_USER_TIMEOUT)."""
HANDSHAKE_SECONDS = 10.0
"""For TLS, before the first request."""
LINGER_SECONDS = 2.0
"""How long a body that nobody wants is read, so that the client sees the answer."""
LINE_BYTES = 4096
"""Request line and each header; a token's URL has 150."""
BACKLOG = 1024
"""A rack that is switched on connects at once."""
EVENTS_PER_SECOND, EVENTS_AT_ONCE = 5.0, 20.0
"""A node reports every second while it loads."""
MAX_RATED = 65536


class EventRate:
    """A bucket of reports for each machine, pure, with `now` in seconds."""

    def __init__(self) -> None:
        self._left: OrderedDict[Mac, tuple[float, float]] = OrderedDict()  # reports left, at; oldest first

    def allows(self, mac: Mac, now: float) -> bool:
        """Take one report out of the machine's bucket; false where it is empty."""
        left, at = self._left.pop(mac, (EVENTS_AT_ONCE, now))
        left = min(EVENTS_AT_ONCE, left + (now - at) * EVENTS_PER_SECOND)
        allowed = left >= 1
        self._left[mac] = (left - 1 if allowed else left, now)
        if len(self._left) > MAX_RATED:
            self._left.popitem(last=False)
        return allowed


class Connections:
    """Counts the connections of each address. `most` is asked anew for each."""

    def __init__(self, most: Callable[[], int]) -> None:
        self._most = most
        self._open: Counter[str] = Counter()

    def admit(self, address: str) -> bool:
        """Whether this address may have one more; the first refusal of a series is told."""
        most = self._most()
        if self._open[address] >= most:
            log.debug("%s: refused a connection: it has %d", address, most)
            return False
        self._open[address] += 1
        if self._open[address] == most:
            log.warning("%s: has %d connections, further ones are refused", address, most)
        return True

    def end(self, address: str) -> None:
        """One has been closed."""
        self._open[address] -= 1
        if not self._open[address]:
            del self._open[address]


class NodeConnection(web.RequestHandler):
    """A connection to the node-facing port, with its limits."""

    __slots__ = ("_address", "_connections")

    def __init__(self, server: web.Server, connections: Connections, counted: str | None = None) -> None:
        """`counted`: the address of a connection that was admitted already, before its handshake."""
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=IDLE_SECONDS,
            lingering_time=LINGER_SECONDS,
            max_line_size=LINE_BYTES,
            max_field_size=LINE_BYTES,
            access_log=None,  # type: ignore[arg-type]  # as aiohttp's own runner says "none"
            logger=http_log(),
        )
        self._connections = connections
        self._address = counted

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Refuse or begin."""
        if self._address is None:
            self._address = _admit(transport, self._connections)
        if self._address is not None:
            super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Count it out, if it was counted in."""
        if self._address is not None:
            self.leave()
            super().connection_lost(exc)

    def leave(self) -> None:
        """Count it out, once."""
        if self._address is not None:
            self._connections.end(self._address)
            self._address = None


def _admit(transport: asyncio.BaseTransport, connections: Connections) -> str | None:
    """The address of a new connection that may stay; one that may not is gone."""
    address: str = transport.get_extra_info("peername")[0]
    if not connections.admit(address):
        transport.abort()  # type: ignore[attr-defined]  # every TCP transport has it
        return None
    connected = transport.get_extra_info("socket")
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(UNREAD_SECONDS * 1000))
    return address


class _Handshake(asyncio.Protocol):
    """A connection until it speaks TLS, counted from its first moment; which asyncio alone would not show."""

    def __init__(
        self, server: web.Server, connections: Connections, context: ssl.SSLContext, tasks: Tasks
    ) -> None:
        self._server, self._connections = server, connections
        self._context, self._tasks = context, tasks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        address = _admit(transport, self._connections)
        if address is not None:
            transport.pause_reading()  # the first bytes are for TLS
            self._tasks.spawn(self._secure(transport, address), "TLS handshake")

    async def _secure(self, transport: asyncio.Transport, address: str) -> None:
        connection = NodeConnection(self._server, self._connections, address)
        secured = None
        try:
            secured = await asyncio.get_running_loop().start_tls(
                transport,
                connection,
                self._context,
                server_side=True,
                ssl_handshake_timeout=HANDSHAKE_SECONDS,
                ssl_shutdown_timeout=LINGER_SECONDS,
            )
        except OSError as error:  # ssl.SSLError is one
            log.debug("%s: no TLS: %s", address, error)
        finally:
            if secured is None or secured.is_closing():
                connection.leave()
                transport.abort()
            else:
                connection.connection_made(secured)


async def listen(server: web.Server, host: str, port: int, connections: Connections) -> asyncio.Server:
    """Serve nodes at one of our addresses. Raises PxebootError."""
    listening = await _listen(host, port, lambda: NodeConnection(server, connections))
    log.info("HTTP on %s:%d", host, port)
    return listening


async def listen_securely(
    server: web.Server,
    host: str,
    port: int,
    connections: Connections,
    context: ssl.SSLContext,
    tasks: Tasks,
) -> asyncio.Server:
    """The same over TLS. Raises PxebootError."""
    listening = await _listen(host, port, lambda: _Handshake(server, connections, context, tasks))
    log.info("HTTPS on %s:%d", host, port)
    return listening


async def _listen(host: str, port: int, protocol: Callable[[], asyncio.BaseProtocol]) -> asyncio.Server:
    try:
        return await asyncio.get_running_loop().create_server(protocol, host, port, backlog=BACKLOG)
    except OSError as error:
        raise port_error(host, port, error) from error
