"""From one datagram to its reply: the store asked, the boot decided, the words left to `responder`."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address
from uuid import UUID

from pxeboot.config import GroupConfig
from pxeboot.dhcp import options, packet, responder
from pxeboot.dhcp.form import Filled, Forms
from pxeboot.dhcp.options import MessageType
from pxeboot.dhcp.packet import BOOTREQUEST, Packet, value_of
from pxeboot.dhcp.prober import Prober, choose
from pxeboot.dhcp.proxy_service import ProxyService
from pxeboot.dhcp.relay import Way, way_of
from pxeboot.dhcp.responder import Reply
from pxeboot.dhcp.terms import HELD_SECONDS, PXE_LEASE_SECONDS, Terms, TermsBook
from pxeboot.dhcp.verdict import Asks, Standing, Verdict, classify, judge
from pxeboot.errors import MalformedPacket
from pxeboot.inventory.identity import recognise
from pxeboot.inventory.lease import Lease, LeaseState
from pxeboot.inventory.node import Node, default_name, group_of, is_known
from pxeboot.inventory.progress import Progress
from pxeboot.inventory.store import Store
from pxeboot.mac import Mac
from pxeboot.pxe.client import Client, identify
from pxeboot.pxe.policy import Decision, decide
from pxeboot.site import Network, Site

log = logging.getLogger(__name__)

OFFER_SECONDS = 60
"""How long an offered address is held: EDK2 may take 32 s to make up its mind."""


@dataclass(slots=True)  # not frozen: it is made for each packet, and that would take three times as long
class _Case:
    """One request: who asks, where, and what it is to be given."""

    request: Packet
    client: Client
    network: Network
    node: Node
    group: GroupConfig | None
    terms: Terms
    held: bool
    """It has an address only until an operator names it."""
    ignored: bool

    @property
    def for_us(self) -> bool:
        """Whether it names no other server than this one."""
        named = value_of(self.request, options.SERVER_IDENTIFIER)
        return named is None or named == self.terms.identifier


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
        send: Callable[[Reply | Filled], None],
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
        self._base_url = site.base_url(address)  # its port is read at start only
        self._terms = TermsBook(address)
        self._forms = Forms()
        self.malformed = 0
        self.received: Counter[MessageType] = Counter()
        """Messages for us, by their type."""
        self.proxy = ProxyService(self._boot_of, progress, send)

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
        way = way_of(request, source_port)
        network = self._site.network_for(self._interface, way.place, request.ciaddr)
        if request.op != BOOTREQUEST or network is None:
            log.debug("%s: ignored: not a request, or from %s, which is no network of ours", client.mac, way)
            return
        self.received[kind] += 1
        try:
            await self._handle(kind, request, client, network, way)
        except OSError as error:
            # The store has told the operator, once; a storm must not become a line for each client.
            log.debug("%s: no answer to %s: %s", client.mac, kind.name, error)

    async def _handle(
        self, kind: MessageType, request: Packet, client: Client, network: Network, way: Way
    ) -> None:
        if network.config.mode == "proxy":
            await self.proxy.overhear(kind, request, client)
            return
        case = await self._case(request, client, network, way)
        if case.ignored:
            log.info("%s: ignored: nobody has named it, and server.unknown is ignore", client.mac)
            return
        match kind:
            case MessageType.DISCOVER:
                await self._discover(case)
            case MessageType.REQUEST:
                await self._request(case)
            case MessageType.RELEASE:
                await self._release(case)
            case MessageType.DECLINE:
                await self._decline(case)
            case MessageType.INFORM:
                self._inform(case)
            case _:
                log.debug("%s: ignored: %s is a server's message", client.mac, kind.name)

    async def _case(self, request: Packet, client: Client, network: Network, way: Way) -> _Case:
        """Bring together who asks and what it is to be given."""
        node = await self._recognise(client)
        config = self._site.config
        group = group_of(node, config)
        unknown = (
            "boot" if config.server.unknown == "boot" or is_known(node, config) else config.server.unknown
        )
        held = unknown == "hold"
        seconds = network.config.lease_seconds
        if held:
            seconds = HELD_SECONDS
        elif client.wants_boot:
            seconds = min(seconds, PXE_LEASE_SECONDS)
        terms = self._terms.find(self._site.networks, network, group, node, seconds, way)
        return _Case(request, client, network, node, group, terms, held, unknown == "ignore")

    async def _discover(self, case: _Case) -> None:
        request, client, network = case.request, case.client, case.network
        decision = self._decide(case.client, case.group, held=case.held)
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
        self._grant(MessageType.OFFER, case, address, decision, news=client.wants_boot)
        if case.held or client.wants_boot:
            await self._progress.seen(client)
        if client.wants_boot and not case.held:
            await self._progress.discovered(client)

    async def _request(self, case: _Case) -> None:
        client, subnet = case.client, case.network.config.subnet
        asks, address = classify(case.request, case.terms.identifier)
        if asks is Asks.ELSEWHERE:
            await self._forget_offer(case)
            return
        if asks is Asks.UNCLEAR:
            log.debug("%s: ignored: a REQUEST that names no address", client.mac)
            return
        lease = await self._store.lease_of(subnet, client.mac)
        verdict = judge(asks, self._standing(case, address, lease))
        if verdict is Verdict.SILENCE:
            log.debug("%s: ignored: has %s, of which we know nothing", client.mac, address)
            return
        if verdict is Verdict.NAK or not await self._bind(case, address):
            reason = "it is not yours now" if address in subnet else f"it is not in {subnet}"
            self._send(responder.nak(case.request, case.terms, f"{address}: {reason}"))
            log.info("%s: NAK for %s: %s", client.mac, address, reason)
            return
        decision = self._decide(client, case.group, held=case.held)
        has_it = lease is not None and lease.state is LeaseState.BOUND and lease.address == address
        self._grant(MessageType.ACK, case, address, decision, news=client.wants_boot or not has_it)
        if client.wants_boot and not case.held:
            await self._progress.addressed(client, address)

    def _grant(
        self, kind: MessageType, case: _Case, address: IPv4Address, decision: Decision, *, news: bool
    ) -> None:
        """Send an OFFER or ACK, and tell of it."""
        request, client = case.request, case.client
        self._send(self._forms.grant(kind, request, client, case.terms, address, decision, case.node.name))
        tell(kind, client.mac, address, decision, news=news)

    def _standing(self, case: _Case, address: IPv4Address, lease: Lease | None) -> Standing:
        network, node = case.network.config, case.node
        held_until = (node.known_since or 0) + HELD_SECONDS  # of a lease that was given before it was named
        return Standing(
            here=address in network.subnet,
            known=lease is not None or (node.address is not None and node.address in network.subnet),
            ours=lease is None and self._site.gives(address),  # the rest is known without it
            authoritative=network.authoritative,
            outdated=(
                self._site.config.server.unknown == "hold"
                and node.known_since is not None
                and lease is not None
                and lease.state is LeaseState.BOUND
                and lease.expires <= held_until
            ),
        )

    async def _bind(self, case: _Case, address: IPv4Address) -> bool:
        """Put the lease on disk; False where the machine has or must have another address."""
        subnet, mac, now = case.network.config.subnet, case.client.mac, time.time()
        if await self._store.offer(subnet, mac, address, now, OFFER_SECONDS) != address:
            return False
        return await self._store.bind(subnet, mac, address, now, case.terms.lease_seconds)

    async def _forget_offer(self, case: _Case) -> None:
        """It takes another server's offer. A lease that it has from us runs out by itself."""
        subnet, mac = case.network.config.subnet, case.client.mac
        lease = await self._store.lease_of(subnet, mac)
        if lease is not None and lease.state is LeaseState.OFFERED:
            await self._store.release(subnet, mac, lease.address, time.time())
            log.debug("%s: takes another server's offer", mac)

    async def _release(self, case: _Case) -> None:
        mac, address = case.client.mac, case.request.ciaddr
        if case.for_us and await self._store.release(case.network.config.subnet, mac, address, time.time()):
            log.info("%s: released %s", mac, address)

    async def _decline(self, case: _Case) -> None:
        mac, address = case.client.mac, value_of(case.request, options.REQUESTED_ADDRESS)
        if (
            isinstance(address, IPv4Address)
            and case.for_us
            and await self._store.decline(case.network.config.subnet, mac, address, time.time())
        ):
            log.warning("%s: declined %s: something else there has that address; find it", mac, address)

    def _inform(self, case: _Case) -> None:
        request, client = case.request, case.client
        if request.ciaddr not in case.network.config.subnet:
            log.debug("%s: ignored: informs itself at %s, not of this network", client.mac, request.ciaddr)
            return
        decision = self._decide(client, case.group, held=case.held)
        self._send(responder.inform_ack(request, client, case.terms, decision, case.node.name))

    async def _boot_of(self, client: Client) -> tuple[Decision, Terms] | None:
        """What a client boots whose address is another server's affair; None: it is to be ignored."""
        node, config = await self._recognise(client), self._site.config
        network = self._site.network_for(self._interface, None)
        unknown = "boot" if is_known(node, config) else config.server.unknown
        if network is None or unknown == "ignore":
            return None
        group = group_of(node, config)
        terms = self._terms.find(self._site.networks, network, group, node, PXE_LEASE_SECONDS, Way())
        return self._decide(client, group, held=unknown == "hold"), terms

    async def _recognise(self, client: Client) -> Node:
        networks = [network.config.subnet for network in self._site.leasing] if client.uuid else []
        node = await recognise(self._store, client.mac, client.uuid, networks)
        return node or unnamed(client.mac, client.uuid)

    def _decide(self, client: Client, group: GroupConfig | None, *, held: bool) -> Decision:
        if held:
            return Decision("", "held until an operator names it")
        return decide(client, group, self._base_url, self._site.loaders)


@lru_cache(4096)  # a machine asks four times or more in one boot
def unnamed(mac: Mac, uuid: UUID | None) -> Node:
    """What stands for a machine of which nothing is written down."""
    return Node(mac, default_name(mac), uuid)


def tell(kind: MessageType, mac: Mac, address: IPv4Address, decision: Decision, *, news: bool) -> None:
    """The line of an OFFER or ACK. One without news is for debugging: a storm of packets must not become one
    of lines, and `pxeboot status` has the leases."""
    level = logging.INFO if news else logging.DEBUG
    if log.isEnabledFor(level):
        words = "offered" if kind is MessageType.OFFER else "has"
        log.log(level, "%s: %s %s, %s", mac, words, address, decision)
