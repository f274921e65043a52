"""Network interfaces of this box, asked through netlink."""

from ipaddress import IPv4Interface

from pyroute2 import IPRoute

from pxeboot.errors import PxebootError


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
