"""The DHCP server's sockets on one interface: packets in, the store asked, replies out."""

import asyncio
import errno
import logging
import socket
import struct
import time
from ipaddress import IPv4Address

from pxeboot.dhcp import options, packet, responder
from pxeboot.dhcp.frame import udp_datagram
from pxeboot.dhcp.options import MessageType
from pxeboot.dhcp.packet import BOOTREQUEST, Packet, value_of
from pxeboot.dhcp.responder import (
    CLIENT_PORT,
    SERVER_PORT,
    Asks,
    Broadcast,
    Direct,
    Reply,
    Terms,
    Unicast,
)
from pxeboot.errors import MalformedPacket, PxebootError
from pxeboot.inventory.node import Node, default_name, group_of
from pxeboot.inventory.progress import Progress
from pxeboot.inventory.store import Store
from pxeboot.pxe.client import Client, identify
from pxeboot.pxe.policy import Decision, decide
from pxeboot.site import Network, Site
from pxeboot.tasks import Tasks

log = logging.getLogger(__name__)

OFFER_SECONDS = 60
"""How long an offered address is held: EDK2 may take 32 s to make up its mind."""
RECEIVE_BUFFER_BYTES = 4 << 20
MAX_WAITING = 4096
"""Requests under way at once; more are dropped, and the clients ask again."""
BATCH = 64
"""Datagrams read at one wake-up before others have their turn."""
_ETH_P_IP = 0x0800
_IP_PKTINFO = 8  # linux/in.h; Python's socket module has no name for it
_EVERYBODY = IPv4Address("255.255.255.255")


class DhcpServer:
    """Answers DHCP on one interface, also for networks behind relays that reach it there."""

    def __init__(
        self, interface: str, address: IPv4Address, site: Site, store: Store, progress: Progress
    ) -> None:
        """`address` is ours on that interface and names this server to clients."""
        self._interface = interface
        self._address = address
        self._site = site
        self._store = store
        self._progress = progress
        self._tasks = Tasks()
        self._udp: socket.socket | None = None
        self._raw: socket.socket | None = None
        self.dropped = 0
        """Packets that were malformed or came when too many were waiting."""

    async def start(self) -> None:
        """Open the sockets. Raises PxebootError where that cannot be."""
        self._udp = open_udp(self._interface)
        # Protocol 0: it sends frames and receives none.
        self._raw = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        self._raw.setblocking(False)
        asyncio.get_running_loop().add_reader(self._udp.fileno(), self._readable)
        log.info("DHCP on %s as %s", self._interface, self._address)

    async def close(self) -> None:
        """Stop answering."""
        if self._udp is not None:
            asyncio.get_running_loop().remove_reader(self._udp.fileno())
        await self._tasks.close()
        for opened in (self._udp, self._raw):
            if opened is not None:
                opened.close()

    def _readable(self) -> None:
        assert self._udp is not None
        for _ in range(BATCH):
            try:
                data = self._udp.recv(65535)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                log.warning("%s: cannot receive: %s", self._interface, error)
                return
            if len(self._tasks) >= MAX_WAITING:
                self.dropped += 1
                log.debug("dropped a packet: %d requests are waiting", MAX_WAITING)
                continue
            self._tasks.spawn(self._answer(data), "DHCP request")

    async def _answer(self, data: bytes) -> None:
        try:
            request = packet.decode(data)
            client = identify(request)
            kind = request.message_type
        except MalformedPacket as error:
            self.dropped += 1
            log.debug("dropped a packet on %s: %s", self._interface, error)
            return
        network = self._site.network_for(self._interface, request.giaddr)
        if request.op != BOOTREQUEST or network is None:
            log.debug("%s: ignored: not a request, or from relay %s", client.mac, request.giaddr)
            return
        try:
            await self._handle(kind, request, client, network)
        except OSError as error:
            log.error("%s: no answer to %s: %s", client.mac, kind.name, error)

    async def _handle(self, kind: MessageType, request: Packet, client: Client, network: Network) -> None:
        match kind:
            case MessageType.DISCOVER:
                await self._discover(request, client, network)
            case MessageType.REQUEST:
                await self._request(request, client, network)
            case MessageType.RELEASE:
                await self._release(request, client, network)
            case MessageType.DECLINE:
                await self._decline(request, client, network)
            case MessageType.INFORM:
                decision, name = await self._decide(client)
                self._send(responder.inform_ack(request, client, self._terms(network), decision, name))
            case _:
                log.debug("%s: ignored: %s is a server's message", client.mac, kind.name)

    async def _discover(self, request: Packet, client: Client, network: Network) -> None:
        wanted = value_of(request, options.REQUESTED_ADDRESS)
        address = await self._store.offer(
            network.config.subnet,
            client.mac,
            wanted if isinstance(wanted, IPv4Address) else None,
            time.time(),
            OFFER_SECONDS,
        )
        if address is None:
            log.error("%s: no address left in %s; make its pool larger", client.mac, network.config.subnet)
            return
        decision, name = await self._decide(client)
        self._send(responder.offer(request, client, self._terms(network), address, decision, name))
        log.info("%s: offered %s, %s", client.mac, address, decision)
        if client.wants_pxe:
            await self._progress.seen(client)
            await self._progress.discovered(client)

    async def _request(self, request: Packet, client: Client, network: Network) -> None:
        terms = self._terms(network)
        asks, address = responder.classify(request, self._address)
        if asks is Asks.ELSEWHERE:
            await self._forget_offer(client, network)
            return
        if asks is Asks.UNCLEAR:
            log.debug("%s: ignored: a REQUEST that names no address", client.mac)
            return
        if address not in network.config.subnet:
            self._send(responder.nak(request, terms, f"{address} is not of this network"))
            log.info("%s: NAK: %s is not in %s", client.mac, address, network.config.subnet)
            return
        if asks is Asks.REBOOTING and not await self._knows(client, network):
            # RFC 2131 §4.3.2: no record of this client, so another server may have one.
            log.debug("%s: ignored: asks for %s, which we never gave it", client.mac, address)
            return
        if not await self._bind(client, network, address):
            self._send(responder.nak(request, terms, f"{address} is not yours"))
            log.info("%s: NAK: %s is not its address", client.mac, address)
            return
        decision, name = await self._decide(client)
        self._send(responder.ack(request, client, terms, address, decision, name))
        log.info("%s: has %s, %s", client.mac, address, decision)
        if client.wants_pxe:
            await self._progress.addressed(client, address)

    async def _bind(self, client: Client, network: Network, address: IPv4Address) -> bool:
        """Put the lease on disk; False where the machine has or must have another address."""
        subnet, now = network.config.subnet, time.time()
        if await self._store.offer(subnet, client.mac, address, now, OFFER_SECONDS) != address:
            return False
        return await self._store.bind(subnet, client.mac, address, now, network.config.lease_seconds)

    async def _knows(self, client: Client, network: Network) -> bool:
        return await self._store.lease_of(network.config.subnet, client.mac) is not None

    async def _forget_offer(self, client: Client, network: Network) -> None:
        lease = await self._store.lease_of(network.config.subnet, client.mac)
        if lease is not None:
            await self._store.release(network.config.subnet, client.mac, lease.address, time.time())
            log.debug("%s: takes another server's offer", client.mac)

    async def _release(self, request: Packet, client: Client, network: Network) -> None:
        if await self._store.release(network.config.subnet, client.mac, request.ciaddr, time.time()):
            log.info("%s: released %s", client.mac, request.ciaddr)

    async def _decline(self, request: Packet, client: Client, network: Network) -> None:
        address = value_of(request, options.REQUESTED_ADDRESS)
        if isinstance(address, IPv4Address) and await self._store.decline(
            network.config.subnet, client.mac, address, time.time()
        ):
            log.warning(
                "%s: declined %s: something else there has that address; find it", client.mac, address
            )

    async def _decide(self, client: Client) -> tuple[Decision, str]:
        """What the client boots, and what it is called."""
        node = await self._store.node(client.mac) or Node(client.mac, default_name(client.mac), client.uuid)
        group = group_of(node, self._site.config)
        decision = decide(client, group, self._site.base_url(self._address))
        return decision, node.name

    def _terms(self, network: Network) -> Terms:
        config = network.config
        return Terms(
            server=self._address,
            subnet=config.subnet,
            router=config.router or network.address,
            dns=config.dns if config.dns is not None else (self._address,),
            lease_seconds=config.lease_seconds,
        )

    def _send(self, reply: Reply) -> None:
        payload = packet.encode(reply.packet)
        try:
            match reply.destination:
                case Broadcast():
                    self._send_udp(payload, _EVERYBODY, CLIENT_PORT)
                case Unicast(address, port):
                    self._send_udp(payload, address, port)
                case Direct(mac, address):
                    datagram = udp_datagram((self._address, SERVER_PORT), (address, CLIENT_PORT), payload)
                    assert self._raw is not None
                    self._raw.sendto(datagram, (self._interface, _ETH_P_IP, 0, 0, mac.packed))
        except OSError as error:
            log.warning("%s: reply not sent: %s", reply.packet.chaddr.hex(":"), error)

    def _send_udp(self, payload: bytes, address: IPv4Address, port: int) -> None:
        """From our address on this interface, whatever the routing table says."""
        assert self._udp is not None
        pktinfo = struct.pack("=I4s4s", 0, self._address.packed, b"\0\0\0\0")  # struct in_pktinfo, ip(7)
        self._udp.sendmsg(
            [payload], [(socket.IPPROTO_IP, _IP_PKTINFO, pktinfo)], 0, (str(address), port)
        )


def open_udp(interface: str) -> socket.socket:
    """A socket for port 67 on one interface. Raises PxebootError, telling what is in the way."""
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        udp.setblocking(False)
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
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
