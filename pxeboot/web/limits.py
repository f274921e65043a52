"""What one client may take of us: connections, time, and reports. RFC 9110 leaves all of it to servers."""

import asyncio
import logging
import socket
from collections import Counter, OrderedDict
from collections.abc import Callable

from aiohttp import web

from pxeboot.mac import Mac
from pxeboot.preflight import port_error
from pxeboot.web.faults import http_log

log = logging.getLogger(__name__)

IDLE_SECONDS = 15.0
"""From a connection's begin, or its last answer, to the end of the next request's headers."""
BODY_SECONDS = 10.0
"""For a report's body: a node sends it at once."""
UNREAD_SECONDS = 30.0
"""A client that is gone, or reads nothing, loses its connection (tcp(7), TCP_USER_TIMEOUT)."""
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

    def __init__(self, server: web.Server, connections: Connections) -> None:
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
        self._address: str | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Refuse or begin."""
        address = transport.get_extra_info("peername")[0]
        if not self._connections.admit(address):
            transport.abort()  # type: ignore[attr-defined]  # every TCP transport has it
            return
        self._address = address
        connected = transport.get_extra_info("socket")
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(UNREAD_SECONDS * 1000))
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Count it out, if it was counted in."""
        if self._address is not None:
            self._connections.end(self._address)
            super().connection_lost(exc)


async def listen(server: web.Server, host: str, port: int, connections: Connections) -> asyncio.Server:
    """Serve nodes at one of our addresses. Raises PxebootError."""
    loop = asyncio.get_running_loop()
    try:
        listening = await loop.create_server(
            lambda: NodeConnection(server, connections), host, port, backlog=BACKLOG
        )
    except OSError as error:
        raise port_error(host, port, error) from error
    log.info("HTTP on %s:%d", host, port)
    return listening
