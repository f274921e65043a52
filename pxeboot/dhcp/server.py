"""The DHCP server's sockets on one interface: datagrams in, replies out by the right way."""

import errno
import logging
import socket
import struct
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from ipaddress import IPv4Address

from pxeboot.dhcp.form import Filled
from pxeboot.dhcp.frame import udp_datagram
from pxeboot.dhcp.inbox import Inbox
from pxeboot.dhcp.lane import Lane
from pxeboot.dhcp.options import MessageType
from pxeboot.dhcp.packet import CHADDR
from pxeboot.dhcp.prober import Prober
from pxeboot.dhcp.proxy_service import ProxyService
from pxeboot.dhcp.responder import (
    CLIENT_PORT,
    SERVER_PORT,
    Broadcast,
    Destination,
    Direct,
    Reply,
    Unicast,
)
from pxeboot.dhcp.service import DhcpService
from pxeboot.errors import PxebootError
from pxeboot.inventory.progress import Progress
from pxeboot.inventory.store import Store
from pxeboot.site import Site

log = logging.getLogger(__name__)

_ETH_P_IP = 0x0800
_IP_PKTINFO = 8  # linux/in.h; Python's socket module has no name for it
_EVERYBODY = IPv4Address("255.255.255.255")
_text = lru_cache(1024)(str)
"""An address as the socket wants it: a storm's replies all go to a few relays."""


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
        pktinfo = struct.pack("=I4s4s", 0, address.packed, bytes(4))  # struct in_pktinfo, ip(7)
        self._from = [(socket.IPPROTO_IP, _IP_PKTINFO, pktinfo)]
        self._lane = Lane(interface, address, site, store, probers, self._service, self._deliver)
        self._udp: socket.socket | None = None
        self._raw: socket.socket | None = None
        self._inbox: Inbox | None = None

    @property
    def too_many(self) -> int:
        """Requests since the start that were dropped, by us or by the kernel: more than can be answered."""
        return 0 if self._inbox is None else self._inbox.dropped + self._inbox.dropped_by_kernel

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
        """Datagrams that were not looked at, by the reason."""
        drops = {"malformed": self._service.malformed}
        if self._inbox is not None:
            drops |= {"queue": self._inbox.dropped, "kernel": self._inbox.dropped_by_kernel}
        return drops

    async def start(self) -> None:
        """Open the sockets. Raises PxebootError where that cannot be."""
        self._udp = open_udp(self._interface)
        # Protocol 0: it sends frames and receives none.
        self._raw = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        self._raw.setblocking(False)
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
        self._deliver(reply.payload, reply.destination)

    def _deliver(self, payload: bytes, destination: Destination) -> None:
        try:
            match destination:
                case Unicast(address, port):
                    self._send_udp(payload, address, port)
                case Broadcast():
                    self._send_udp(payload, _EVERYBODY, CLIENT_PORT)
                case Direct(mac, address):
                    datagram = udp_datagram((self._address, SERVER_PORT), (address, CLIENT_PORT), payload)
                    assert self._raw is not None
                    self._raw.sendto(datagram, (self._interface, _ETH_P_IP, 0, 0, mac.packed))
        except OSError as error:
            log.warning("%s: reply not sent: %s", payload[CHADDR].hex(":"), error)

    def _send_udp(self, payload: bytes, address: IPv4Address, port: int) -> None:
        """From our address on this interface, whatever the routing table says."""
        assert self._udp is not None
        self._udp.sendmsg([payload], self._from, 0, (_text(address), port))


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
