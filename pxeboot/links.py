"""Network interfaces of this box, asked through netlink."""

from collections import defaultdict
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Address

from pyroute2 import IPRoute

from pxeboot.errors import PxebootError
from pxeboot.mac import Mac

_ARPHRD_ETHER = 1  # linux/if_arp.h


def addresses(interface: str) -> list[IPv4Interface]:
    """The IPv4 addresses of an interface that is up. Raises PxebootError where it is missing or down."""
    with IPRoute() as netlink:
        names = {link.get("ifname"): link for link in netlink.get_links()}
        if interface not in names:
            present = ", ".join(sorted(str(name) for name in names if name != "lo"))
            raise PxebootError(
                f"interface {interface!r} does not exist", f"name one of this machine's: {present}"
            )
        link = names[interface]
        if link.get("state") != "up":
            raise PxebootError(f"interface {interface!r} is down", f"bring it up: ip link set {interface} up")
        found = netlink.get_addr(family=2, index=link["index"])
        return [IPv4Interface((item.get("address"), item["prefixlen"])) for item in found]


def ipv6_addresses() -> tuple[IPv6Address, ...]:
    """This box's IPv6 addresses, on all interfaces."""
    with IPRoute() as netlink:
        return tuple(IPv6Address(item.get("address")) for item in netlink.get_addr(family=10))


@dataclass(frozen=True, slots=True)
class Link:
    """An Ethernet interface of this box and its IPv4 addresses."""

    name: str
    mac: Mac
    addresses: tuple[IPv4Address, ...]


def ethernet() -> list[Link]:
    """The Ethernet interfaces that are up; of a bridge or a bond only itself, not its ports."""
    with IPRoute() as netlink:
        present = {
            link["index"]: link
            for link in netlink.get_links()
            if link["ifi_type"] == _ARPHRD_ETHER and link.get("state") == "up" and link.get("master") is None
        }
        found: dict[int, list[IPv4Address]] = defaultdict(list)
        for item in netlink.get_addr(family=2):
            found[item["index"]].append(IPv4Address(item.get("address")))
        return [
            Link(str(link.get("ifname")), Mac.parse(str(link.get("address"))), tuple(found[index]))
            for index, link in present.items()
        ]
