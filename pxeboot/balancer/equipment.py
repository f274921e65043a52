"""What a node has to have set up for the services of its group, and whether it has. Pure.

The node's agent is told it as entries, which `initrd/services.sh` explains, and says with every heartbeat
which of them it has. Whoever plans a service leaves out a node that has not (yet) got what it needs:
its answers would not reach the client, or it would not take the packet for its own.
"""

from collections.abc import Iterable
from ipaddress import IPv6Address

from pxeboot.balancer.service import ServiceConfig
from pxeboot.mac import Mac

SEPARATOR = ","


def eui64(mac: Mac, prefix: IPv6Address) -> IPv6Address:
    """The modified EUI-64 address of a card in a /64 (RFC 4291 Appendix A)."""
    packed = mac.packed
    identifier = bytes([packed[0] ^ 2]) + packed[1:3] + b"\xff\xfe" + packed[3:]
    return IPv6Address(int(prefix) | int.from_bytes(identifier, "big"))


def needs(service: ServiceConfig, mac: Mac) -> frozenset[str]:
    """The entries that a service wants of a node; none for "nat" with IPv4: the router is in the lease."""
    entries = set()
    if service.node_prefix is not None:
        entries.add(f"address {eui64(mac, service.node_prefix.network_address)}/64")
    if service.forward != "nat":
        entries.add(f"{service.forward} {service.vip}")
    return frozenset(entries)


def told(
    services: Iterable[ServiceConfig], group: str, mac: Mac, gateways: Iterable[IPv6Address] = ()
) -> str:
    """What a node of that group is told, in an order of its own. `gateways`: our own addresses."""
    entries: set[str] = set()
    for service in services:
        if service.group != group:
            continue
        entries |= needs(service, mac)
        if service.forward == "nat" and service.node_prefix is not None:
            entries |= {f"gateway {address}" for address in gateways if address in service.node_prefix}
    return SEPARATOR.join(sorted(entries))


def is_equipped(service: ServiceConfig, mac: Mac, has: str) -> bool:
    """Whether a node that told us to have `has` can serve."""
    return needs(service, mac) <= set(has.split(SEPARATOR))
