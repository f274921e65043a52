"""The socket at port 4011 of one interface, where firmware asks a second time what to boot (PXE 2.1 §2.2)."""

import asyncio
import logging
import socket
from ipaddress import IPv4Address

from pxeboot.dhcp import packet
from pxeboot.dhcp.proxy import BOOT_SERVER_PORT
from pxeboot.dhcp.proxy_service import ProxyService
from pxeboot.dhcp.responder import CLIENT_PORT, Reply, Unicast
from pxeboot.errors import PxebootError
from pxeboot.tasks import Tasks

log = logging.getLogger(__name__)

MAX_WAITING = 1024
"""Requests under way at once; more are dropped, and the firmware asks again after a second or more."""
BATCH = 64
"""Datagrams read at one wake-up before others have their turn."""
_EVERYBODY = IPv4Address("255.255.255.255")


class BootServer:
    """Answers at port 4011 of our address: in proxy mode, and for firmware that asks a DHCP server twice."""

    def __init__(self, interface: str, address: IPv4Address, service: ProxyService) -> None:
        self._interface = interface
        self._address = address
        self._service = service
        self._tasks = Tasks()
        self._udp: socket.socket | None = None

    async def start(self) -> None:
        """Open the socket. Raises PxebootError where that cannot be."""
        self._udp = open_boot_server(self._interface, self._address)
        asyncio.get_running_loop().add_reader(self._udp.fileno(), self._readable)

    async def close(self) -> None:
        """Stop answering."""
        if self._udp is not None:
            asyncio.get_running_loop().remove_reader(self._udp.fileno())
            await self._tasks.close()
            self._udp.close()

    def _readable(self) -> None:
        assert self._udp is not None
        for _ in range(BATCH):
            try:
                data, (host, port) = self._udp.recvfrom(65535)
            except OSError:  # nothing more to read, or the interface is down: the loop calls again
                return
            if len(self._tasks) < MAX_WAITING:
                self._tasks.spawn(self._answer(data, (IPv4Address(host), port)), "boot server request")

    async def _answer(self, data: bytes, peer: tuple[IPv4Address, int]) -> None:
        reply = await self._service.answer(data, peer)
        if reply is not None:
            self._send(reply)

    def _send(self, reply: Reply) -> None:
        assert self._udp is not None
        to = reply.destination
        address, port = (to.address, to.port) if isinstance(to, Unicast) else (_EVERYBODY, CLIENT_PORT)
        try:
            self._udp.sendto(packet.encode(reply.packet), (str(address), port))
        except OSError as error:
            log.warning("%s: answer from port 4011 not sent: %s", reply.packet.chaddr.hex(":"), error)


def open_boot_server(interface: str, address: IPv4Address) -> socket.socket:
    """A socket for port 4011 at our address of one interface. Raises PxebootError."""
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        udp.setblocking(False)
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        udp.bind((str(address), BOOT_SERVER_PORT))
    except OSError as error:
        udp.close()
        raise PxebootError(
            f"UDP port {BOOT_SERVER_PORT} on {interface}: {error.strerror}",
            "another PXE server runs here; `ss -lunp sport = :4011` names it: stop it first",
        ) from error
    return udp
