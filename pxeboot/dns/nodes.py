"""The zone of this moment: every node and service under its name, with the address it has."""

import asyncio
import time
from ipaddress import IPv4Address

from pxeboot.balancer.equipment import eui64
from pxeboot.balancer.service import ServiceConfig
from pxeboot.dns.zone import Address, Published, Zone, make_zone
from pxeboot.events import Bus
from pxeboot.inventory.node import Node, group_of, is_unseen
from pxeboot.inventory.store import Store
from pxeboot.site import Site

SETTLE_SECONDS = 0.2
"""Changes within this time make one new zone."""
REFRESH_SECONDS = 5.0
"""An address may expire without anybody saying so."""


class NodeNames:
    """Keeps the zone as the store has it, one for each of our own addresses."""

    def __init__(self, domain: str, site: Site, store: Store, bus: Bus) -> None:
        self._domain = domain
        self._site = site
        self._store = store
        self._bus = bus
        self._hosts: dict[str, tuple[Address, ...]] = {}
        self._services: tuple[ServiceConfig, ...] = ()
        self._zones: dict[IPv4Address, Zone] = {}
        self._serial = int(time.time())

    def zone(self, own: IPv4Address) -> Zone:
        """What holds now, for who reaches us at `own`; the same object until something changes."""
        zone = self._zones.get(own)
        if zone is None:
            networks = tuple(network.config.subnet for network in self._site.networks)
            published = [
                Published(item.name, item.protocol, item.port) for item in self._services if item.port
            ]
            zone = make_zone(self._domain, own, self._hosts, published, networks, self._serial)
            self._zones[own] = zone
        return zone

    def allowed(self, client: IPv4Address) -> bool:
        """Only our networks' machines, and this box itself, are answered: we are no open resolver."""
        return client.is_loopback or self._site.network_of(client) is not None

    async def follow(self) -> None:
        """Make a new zone whenever a node or its address has changed, until cancelled."""
        async with self._bus.subscribe() as news:
            while True:
                await self.refresh()
                if await news.next(REFRESH_SECONDS) is not None:
                    await asyncio.sleep(SETTLE_SECONDS)

    async def refresh(self) -> None:
        """Read the store; a zone that would be the same is kept, and with it the answers made from it."""
        services = self._site.config.service
        hosts = {node.name: await self._addresses(node) for node in await self._store.nodes()}
        hosts = {name: row for name, row in hosts.items() if row}
        hosts |= {item.name: (item.vip,) for item in services}  # the operator's word over a node's name
        if (hosts, services) != (self._hosts, self._services):
            self._hosts, self._services, self._zones = hosts, services, {}
            self._serial = max(self._serial + 1, int(time.time()))

    async def _addresses(self, node: Node) -> tuple[Address, ...]:
        """The IPv4 address it has, and those that IPv6 services give its card by their `node_prefix`."""
        four = await self._address(node)
        group = group_of(node, self._site.config)
        prefixes = dict.fromkeys(
            item.node_prefix.network_address
            for item in self._site.config.service
            if item.node_prefix is not None and group is not None and item.group == group.name
        )
        six = () if is_unseen(node.mac) else tuple(eui64(node.mac, prefix) for prefix in prefixes)
        return six if four is None else (four, *six)

    async def _address(self, node: Node) -> IPv4Address | None:
        now = time.time()
        for network in self._site.leasing:
            lease = await self._store.lease_of(network.config.subnet, node.mac)
            if lease is not None and lease.active(now):
                return lease.address
        return node.address
