"""The DHCP server's sockets on one interface: datagrams in, replies out by the right way."""

import errno
import logging
import socket
from collections import Counter
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address

from pxeboot.dhcp.form import Filled
from pxeboot.dhcp.inbox import Inbox
from pxeboot.dhcp.lane import Lane
from pxeboot.dhcp.options import MessageType
from pxeboot.dhcp.outbox import Letter, Outbox
from pxeboot.dhcp.prober import Prober
from pxeboot.dhcp.proxy_service import ProxyService
from pxeboot.dhcp.responder import SERVER_PORT, Reply
from pxeboot.dhcp.service import DhcpService
from pxeboot.errors import PxebootError
from pxeboot.inventory.progress import Progress
from pxeboot.inventory.store import Store
from pxeboot.site import Site

log = logging.getLogger(__name__)


class DhcpServer:
    """Answers DHCP on one interface, also for networks behind relays that reach it there."""

    def __init__(
        self,
        interface: str,
        address: IPv4Address,
        site: Site,
        store: Store,
        progress: Progress,
        probers: Mapping[str, Prober],
    ) -> None:
        """`address` is ours on that interface and names this server to clients; `probers`: by interface."""
        self._interface = interface
        self._address = address
        self._service = DhcpService(interface, address, site, store, progress, probers, self._send)
        self._lane = Lane(interface, address, site, store, probers, self._service, self._send_all)
        self._udp: socket.socket | None = None
        self._raw: socket.socket | None = None
        self._inbox: Inbox | None = None
        self._outbox: Outbox | None = None

    @property
    def proxy(self) -> ProxyService:
        """What answers at port 4011 on this interface."""
        return self._service.proxy

    @property
    def received(self) -> Mapping[MessageType, int]:
        """Messages for us, by their type."""
        in_lane = {MessageType.DISCOVER: self._lane.discovers, MessageType.REQUEST: self._lane.requests}
        return self._service.received + Counter(in_lane)

    @property
    def dropped(self) -> Mapping[str, int]:
        """Datagrams that were not answered, by the reason: `malformed`, or more came than could be answered,
        dropped by our `queue` or by the `kernel`."""
        inbox = self._inbox
        queue, kernel = (0, 0) if inbox is None else (inbox.dropped, inbox.dropped_by_kernel)
        return {"malformed": self._service.malformed, "queue": queue, "kernel": kernel}

    async def start(self) -> None:
        """Open the sockets. Raises PxebootError where that cannot be."""
        self._udp = open_udp(self._interface)
        # Protocol 0: it sends frames and receives none.
        self._raw = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        self._raw.setblocking(False)
        self._outbox = Outbox(self._interface, self._address, self._udp, self._raw)
        self._inbox = Inbox(
            self._udp, f"DHCP on {self._interface}", self._lane.take, lambda: self._lane.under_way
        )
        self._inbox.open()
        log.info("DHCP on %s as %s", self._interface, self._address)

    async def close(self) -> None:
        """Stop answering."""
        if self._inbox is not None:
            self._inbox.close()
        await self._lane.close()
        for opened in (self._udp, self._raw):
            if opened is not None:
                opened.close()

    def _send(self, reply: Reply | Filled) -> None:
        assert self._outbox is not None
        self._outbox.send(reply.payload, reply.destination)

    def _send_all(self, replies: Iterable[Letter]) -> None:
        assert self._outbox is not None
        self._outbox.send_all(replies)


def open_udp(interface: str) -> socket.socket:
    """A socket for port 67 on one interface. Raises PxebootError, telling what is in the way."""
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        udp.setblocking(False)
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        udp.bind(("0.0.0.0", SERVER_PORT))  # noqa: S104  broadcasts reach no narrower address; the device limits it
    except OSError as error:
        udp.close()
        raise PxebootError(
            f"UDP port {SERVER_PORT} on {interface}: {error.strerror}", _hint(error)
        ) from error
    return udp


def _hint(error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return "another DHCP server runs here; `ss -lunp sport = :67` names it: stop it first"
        case errno.EACCES | errno.EPERM:
            return "run pxeboot as root"
        case _:
            return "look at the interface with `ip address`"
