"""From one datagram to its reply: the store asked, the boot decided, the words left to `responder`."""

import logging
import time
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address

from pxeboot.dhcp import options, packet, responder
from pxeboot.dhcp.options import MessageType
from pxeboot.dhcp.packet import BOOTREQUEST, Packet, value_of
from pxeboot.dhcp.prober import Prober, choose
from pxeboot.dhcp.proxy_service import ProxyService
from pxeboot.dhcp.responder import Asks, Reply, Terms
from pxeboot.errors import MalformedPacket
from pxeboot.inventory.node import Node, default_name, group_of
from pxeboot.inventory.progress import Progress
from pxeboot.inventory.store import Store
from pxeboot.pxe.client import Client, identify
from pxeboot.pxe.policy import Decision, decide
from pxeboot.site import Network, Site

log = logging.getLogger(__name__)

OFFER_SECONDS = 60
"""How long an offered address is held: EDK2 may take 32 s to make up its mind."""


class DhcpService:
    """Answers requests that reach one interface, for its network and those whose relays reach it there."""

    def __init__(
        self,
        interface: str,
        address: IPv4Address,
        site: Site,
        store: Store,
        progress: Progress,
        probers: Mapping[str, Prober],
        send: Callable[[Reply], None],
    ) -> None:
        """`address` is ours on that interface and names this server to clients; `send` takes the replies.

        `probers` know by interface which addresses are free.
        """
        self._interface = interface
        self._address = address
        self._site = site
        self._store = store
        self._progress = progress
        self._probers = probers
        self._send = send
        self.malformed = 0
        self.proxy = ProxyService(address, self._boot_of, progress, send)

    async def answer(self, data: bytes, source_port: int) -> None:
        """Take one datagram and the UDP port it was sent from.

        Its reply is sent before what need not be waited for is written down.
        """
        try:
            request = packet.decode(data)
            client = identify(request)
            kind = request.message_type
        except MalformedPacket as error:
            self.malformed += 1
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
        if network.config.mode == "proxy":
            await self.proxy.overhear(kind, request, client)
            return
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
        decision, name = await self._decide(client)
        if decision.ignored:
            log.warning("%s: %s", client.mac, decision)
            return
        wanted = value_of(request, options.REQUESTED_ADDRESS)
        address = await choose(
            self._store,
            self._probers.get(network.config.interface or ""),
            network.config.subnet,
            client.mac,
            wanted if isinstance(wanted, IPv4Address) else None,
            OFFER_SECONDS,
        )
        if address is None:
            log.error("%s: no address left in %s; make its pool larger", client.mac, network.config.subnet)
            return
        self._send(responder.offer(request, client, self._terms(network), address, decision, name))
        log.info("%s: offered %s, %s", client.mac, address, decision)
        if client.wants_boot:
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
        if client.wants_boot:
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

    async def _boot_of(self, client: Client) -> Decision:
        decision, _ = await self._decide(client)
        return decision

    async def _decide(self, client: Client) -> tuple[Decision, str]:
        """What the client boots, and what it is called."""
        node = await self._store.node(client.mac) or Node(client.mac, default_name(client.mac), client.uuid)
        group = group_of(node, self._site.config)
        decision = decide(client, group, self._site.base_url(self._address), self._site.loaders)
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
