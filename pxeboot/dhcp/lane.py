"""The fast lane: a batch of datagrams answered together, the known kinds of question without reading them.

What it says is what `service` would say: it goes the same way with the same functions, and whatever is not
plain (a machine without a lease where addresses are probed, a refusal, a release) it leaves to `service`.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address

from pxeboot.dhcp import responder
from pxeboot.dhcp.form import Filled, Form, form_of
from pxeboot.dhcp.kinds import CHADDR, CIADDR, Kind, Kinds
from pxeboot.dhcp.options import MessageType
from pxeboot.dhcp.packet import Packet
from pxeboot.dhcp.prober import Prober
from pxeboot.dhcp.relay import Way
from pxeboot.dhcp.responder import CLIENT_PORT, Destination, Unicast
from pxeboot.dhcp.service import OFFER_SECONDS, DhcpService, tell, unnamed
from pxeboot.dhcp.terms import Terms, TermsBook
from pxeboot.dhcp.values import address_of
from pxeboot.dhcp.verdict import Asks
from pxeboot.inventory.lease import LeaseState
from pxeboot.inventory.node import group_of
from pxeboot.inventory.store import Store
from pxeboot.mac import Mac
from pxeboot.pxe.policy import Decision, decide
from pxeboot.site import Network, Site
from pxeboot.tasks import Tasks

log = logging.getLogger(__name__)

_PLAIN = Way()
_NOWHERE = IPv4Address(0)


@dataclass(slots=True)
class _Claim:
    """A REQUEST that has its address in memory, and its ACK, until both are on disk."""

    network: Network
    mac: Mac
    address: IPv4Address
    ack: Filled
    decision: Decision
    news: bool
    question: tuple[bytes, int]


class Lane:
    """Answers datagrams of one interface in batches, ACKs of a batch after one wait for the disk."""

    def __init__(
        self,
        interface: str,
        address: IPv4Address,
        site: Site,
        store: Store,
        probers: Mapping[str, Prober],
        service: DhcpService,
        send: Callable[[Filled], None],
    ) -> None:
        """`service` answers what this cannot."""
        self._interface = interface
        self._site = site
        self._store = store
        self._probers = probers
        self._service = service
        self._send = send
        self._terms = TermsBook(address)
        self._kinds = Kinds(address)
        self._config, self._networks = site.config, site.networks
        self._tasks = Tasks()
        self._claimed = 0

    @property
    def under_way(self) -> int:
        """Requests begun whose answers have not been sent."""
        return len(self._tasks) + self._claimed

    async def close(self) -> None:
        """Answer no more."""
        await self._tasks.close()

    def take(self, batch: list[tuple[bytes, int]]) -> None:
        """Datagrams in the order in which they came, with the UDP ports they came from."""
        if self._config is not self._site.config or self._networks is not self._site.networks:
            self._config, self._networks = self._site.config, self._site.networks
            self._kinds.clear()
        if self._config.server.unknown == "boot":
            self._tasks.start(self._answer(batch), "DHCP batch")
        else:
            for question in batch:
                self._read(question)

    def _read(self, question: tuple[bytes, int]) -> None:
        self._tasks.start(self._service.answer(*question), "DHCP request")

    async def _answer(self, batch: list[tuple[bytes, int]]) -> None:
        now = time.time()
        claims: list[_Claim] = []
        for question in batch:
            try:
                answered = await self._answer_by_kind(question, now, claims)
            except Exception:
                log.exception("DHCP request failed")
                continue
            if not answered:
                self._bind(claims, now)  # before it, so that each machine's packets keep their order
                claims = []
                self._read(question)
        self._bind(claims, now)

    def _network_of(self, request: Packet) -> Network | None:
        place = None if request.giaddr == _NOWHERE else request.giaddr
        return self._site.network_for(self._interface, place)

    async def _answer_by_kind(self, question: tuple[bytes, int], now: float, claims: list[_Claim]) -> bool:
        """Answer with an OFFER, or note an ACK for when the disk has it. False: this is not for the lane."""
        data = question[0]
        kind = self._kinds.find(data) or self._kinds.learn(data, self._network_of)
        if kind is None:
            return False
        subnet = kind.network.config.subnet
        mac = Mac(data[CHADDR].hex(":"))
        lease = await self._store.lease_of(subnet, mac)
        prober = self._probers.get(kind.network.config.interface or "")
        if lease is None and (prober is not None or kind.type is MessageType.REQUEST):
            return False
        written = await self._form(kind, mac)
        if written is None:
            return False
        form, decision, name = written
        wanted = data[kind.wanted] if kind.wanted else data[CIADDR] if kind.asks else None
        asked = None if wanted is None else address_of(wanted)
        address = await self._store.offer(subnet, mac, asked, now, OFFER_SECONDS)
        if address is None or (kind.asks and address != asked):
            return False
        if lease is not None and prober and (lease.address != address or prober.awaited(address)):
            return False
        payload = kind.fill(form, data, address, name)
        reply = Filled(payload, _destination(kind, data, mac, address), data[CHADDR])
        if kind.type is MessageType.DISCOVER:
            self._send(reply)
            tell(MessageType.OFFER, mac, address, decision, news=False)
        else:
            news = lease is None or lease.state is not LeaseState.BOUND or lease.address != address
            claims.append(_Claim(kind.network, mac, address, reply, decision, news, question))
        return True

    async def _form(self, kind: Kind, mac: Mac) -> tuple[Form, Decision, bytes] | None:
        """The form of the reply to this machine, why it boots nothing, and its name; None: it has none."""
        site = self._site
        node = await self._store.node(mac) or unnamed(mac, None)
        if node.options:
            return None  # the terms of one machine alone are made anew each time
        group = group_of(node, site.config)
        terms = self._terms.find(
            site.networks, kind.network, group, node, kind.network.config.lease_seconds, _PLAIN
        )
        name = node.name.encode()
        written = kind.forms.get((id(terms), len(name)))
        if written is None:
            decision = decide(kind.client, group, "", site.loaders)
            form = _write(kind, terms, decision, node.name)
            if form is None:
                return None
            written = kind.forms[id(terms), len(name)] = form, decision
        return *written, name

    def _bind(self, claims: list[_Claim], now: float) -> None:
        """Promise the addresses in memory now, and send the ACKs when they are promised on disk."""
        while claims:
            network = claims[0].network
            these = [claim for claim in claims if claim.network is network]
            claims = [claim for claim in claims if claim.network is not network]
            self._tasks.start(self._acknowledge(network, these, now), "DHCP leases")

    async def _acknowledge(self, network: Network, claims: list[_Claim], now: float) -> None:
        config = network.config
        wishes = [(claim.mac, claim.address) for claim in claims]
        self._claimed += len(claims)
        try:
            bound = await self._store.bind_all(config.subnet, wishes, now, config.lease_seconds)
        except OSError as error:
            log.debug("%d requests not answered: %s", len(claims), error)  # the store has told the operator
            return
        finally:
            self._claimed -= len(claims)
        for claim, is_bound in zip(claims, bound, strict=True):
            if is_bound:
                self._send(claim.ack)
                tell(MessageType.ACK, claim.mac, claim.address, claim.decision, news=claim.news)
            else:
                self._read(claim.question)


def _write(kind: Kind, terms: Terms, decision: Decision, name: str) -> Form | None:
    write = responder.ack if kind.asks else responder.offer
    if decision.bootfile or decision.ignored:
        return None
    return form_of(write(kind.request, kind.client, terms, terms.server, decision, name).packet, terms)


def _destination(kind: Kind, data: bytes, mac: Mac, address: IPv4Address) -> Destination:
    """`responder.destination`, by what is this machine's own."""
    if kind.way_back is not None:
        return kind.way_back
    if kind.asks is Asks.RENEWING:
        return Unicast(address_of(data[CIADDR]), CLIENT_PORT)
    return responder.to_newcomer(kind.request, mac, address)
