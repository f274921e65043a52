"""What a network, a group and a node give a machine: options as they go on the wire, worked out once."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network

from pxeboot.config import GroupConfig
from pxeboot.dhcp import custom, options
from pxeboot.dhcp.options import Option, read
from pxeboot.dhcp.relay import RELAY_PORT, Way
from pxeboot.dhcp.values import Route
from pxeboot.errors import MalformedPacket
from pxeboot.inventory.boot import LIMIT_SECONDS, Stage
from pxeboot.inventory.node import Node
from pxeboot.site import Network

PXE_LEASE_SECONDS = int(
    sum(
        LIMIT_SECONDS[stage]
        for stage in (Stage.ADDRESS, Stage.LOADER, Stage.SCRIPT, Stage.KERNEL, Stage.INITRD)
    )
)
"""Longest lease for firmware and loaders, which neither renew nor release. A boot within its stages' limits
has reached our initrd by then, whose reports prolong it; one that dies leaves the address free soon."""
HELD_SECONDS = 60
"""Lease of a machine that waits for a name. No other lease is shorter (`network.lease_seconds`)."""

_DEFAULT_ROUTE = IPv4Network("0.0.0.0/0")


@dataclass(frozen=True)
class Terms:
    """What one network gives its machines, and who says so."""

    server: IPv4Address
    subnet: IPv4Network
    router: IPv4Address | None
    dns: tuple[IPv4Address, ...]
    lease_seconds: int
    options: Mapping[int, bytes] = field(default_factory=dict)
    """What the operator has set, by code."""
    override: IPv4Address | None = None
    """What the relay wants to be heard as our address (RFC 5107)."""
    relay_port: int = RELAY_PORT

    @property
    def identifier(self) -> IPv4Address:
        """Our name to the client, option 54."""
        return self.override or self.server

    @cached_property
    def times(self) -> dict[int, bytes]:
        """Lease time, T1 and T2 (RFC 2131 §4.4.5)."""
        return {
            options.LEASE_TIME.code: options.LEASE_TIME.encode(self.lease_seconds),
            options.RENEWAL_TIME.code: options.RENEWAL_TIME.encode(self.lease_seconds // 2),
            options.REBINDING_TIME.code: options.REBINDING_TIME.encode(self.lease_seconds * 7 // 8),
        }

    @cached_property
    def basic(self) -> dict[int, bytes]:
        """What no machine can do without: mask and router, in this order (RFC 2132 §3.3)."""
        basic = {options.SUBNET_MASK.code: self.subnet.netmask.packed}
        router = self.available.get(options.ROUTER.code)
        return basic if router is None else basic | {options.ROUTER.code: router}

    @cached_property
    def available(self) -> dict[int, bytes]:
        """All that can be asked for; the operator's word holds over what follows from the network."""
        available = {options.BROADCAST_ADDRESS.code: self.subnet.broadcast_address.packed}
        if self.router is not None:
            available[options.ROUTER.code] = self.router.packed
        if self.dns:
            available[options.DOMAIN_NAME_SERVER.code] = options.DOMAIN_NAME_SERVER.encode(self.dns)
        return {**available, **self.options, **self._routes()}

    def addresses(self, option: Option) -> tuple[IPv4Address, ...]:
        """The addresses in an option, for who does not ask by DHCP; none where the bytes are none."""
        try:
            return read(option, self.available) or ()
        except MalformedPacket:
            return ()

    def _routes(self) -> dict[int, bytes]:
        """Option 121 with the default route in it: who reads 121 leaves option 3 unread (RFC 3442)."""
        try:
            routes = read(options.CLASSLESS_STATIC_ROUTES, self.options)
        except MalformedPacket:
            return {}  # bytes by the operator's own hand
        if routes is None or self.router is None or any(row.destination == _DEFAULT_ROUTE for row in routes):
            return {}
        code = options.CLASSLESS_STATIC_ROUTES.code
        return {code: options.CLASSLESS_STATIC_ROUTES.encode((*routes, Route(_DEFAULT_ROUTE, self.router)))}


class TermsBook:
    """The terms of every network and group, made when they are first needed."""

    def __init__(self, server: IPv4Address) -> None:
        self._server = server
        self._networks: tuple[Network, ...] = ()
        self._made: dict[tuple[int, str | None, int], Terms] = {}

    def find(
        self,
        networks: tuple[Network, ...],
        network: Network,
        group: GroupConfig | None,
        node: Node | None,
        lease_seconds: int,
        way: Way,
    ) -> Terms:
        """The terms for one machine. `networks` are all of the site's: when they change, all is made anew."""
        if networks is not self._networks:
            self._networks, self._made = networks, {}
        key = id(network), group.name if group else None, lease_seconds
        terms = self._made.get(key)
        if terms is None:
            terms = self._made[key] = make_terms(network, group, None, self._server, lease_seconds)
        if node is not None and node.options:
            terms = make_terms(network, group, node, self._server, lease_seconds)
        if way.identifier is not None or way.port != RELAY_PORT:
            terms = replace(terms, override=way.identifier, relay_port=way.port)
        return terms


def make_terms(
    network: Network, group: GroupConfig | None, node: Node | None, server: IPv4Address, lease_seconds: int
) -> Terms:
    """The terms for one machine, or for all of a group: a node's options hold over a group's, and those over
    the network's."""
    config = network.config
    return Terms(
        server=server,
        subnet=config.subnet,
        router=config.router or network.address,
        dns=config.dns if config.dns is not None else (server,),
        lease_seconds=lease_seconds,
        options={
            **config.options,
            **(group.options if group else {}),
            **(custom.encode_all(node.options) if node else {}),
        },
    )
