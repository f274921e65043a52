"""What the director needs beside its table: the virtual addresses on this box, and the kernel's settings.

All of it blocks and runs in the balancer's thread.
"""

import logging
import socket
from collections.abc import Iterable, Mapping
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface, ip_interface
from pathlib import Path

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from pxeboot.balancer.service import Address, ServiceConfig
from pxeboot.dhcp import arp
from pxeboot.errors import PxebootError
from pxeboot.mac import Mac

log = logging.getLogger(__name__)

SYSCTL = Path("/proc/sys")
_NO_DAD = 0x02  # IFA_F_NODAD (linux/if_addr.h)
_IPV6_OPTIONS = {"flags": _NO_DAD, "preferred_lft": 0, "valid_lft": 0xFFFFFFFF}
"""Deprecated (RFC 4862 §5.5.4): never the source of what we send ourselves. Our checks and the outside of our
tunnels would else have it (RFC 6724 §5 has no other rule between two addresses of one /64), and a node, which
has the virtual address too, drops what comes from an address of its own."""
_LOOPBACK = 1  # the scope of `lo` as an interface index


def settings(services: Iterable[ServiceConfig], interfaces: Iterable[str]) -> dict[str, str]:
    """The kernel's settings by their path below /proc/sys. `interfaces`: those with virtual addresses.

    Source: Documentation/networking/ipvs-sysctl.rst, ip-sysctl.rst. A connection whose server is out of the
    table is forgotten with its next packet, so that the client is told rather than left to wait; a client
    that persists on a server of weight 0 gets another one. With NAT we are the nodes' router: we forward, and
    tell nobody of a shorter way, for an answer must come back through us.
    """
    wanted = {"net/ipv4/vs/expire_nodest_conn": "1", "net/ipv4/vs/expire_quiescent_template": "1"}
    families = {service.vip.version for service in services if service.forward == "nat"}
    if 4 in families:
        wanted["net/ipv4/ip_forward"] = "1"
        wanted |= {f"net/ipv4/conf/{name}/send_redirects": "0" for name in ("all", *interfaces)}
    if 6 in families:
        wanted["net/ipv6/conf/all/forwarding"] = "1"
    return wanted


class Director:
    """This box's addresses and settings."""

    def __init__(self) -> None:
        self._links = IPRoute()

    def close(self) -> None:
        """Let go of the socket; addresses and settings stay."""
        self._links.close()

    def home(self, config: ServiceConfig) -> str:
        """The interface a virtual address belongs on. Raises PxebootError where none is fit."""
        names = self._names()
        if config.interface is not None:
            if config.interface not in names.values():
                raise PxebootError(
                    f"service {config.name}: interface {config.interface!r} does not exist",
                    f"name one of this machine's: {', '.join(sorted(names.values()))}",
                )
            return config.interface
        fit = [
            (interface.network.prefixlen, index)
            for index, interface in self._interfaces()
            if index != _LOOPBACK and interface.ip != config.vip and config.vip in interface.network
        ]
        if not fit:
            raise PxebootError(
                f"service {config.name}: no interface has an address in the subnet of {config.vip}",
                'say where it goes, like interface = "eth0" in the [[service]]',
            )
        return names[max(fit)[1]]

    def has(self, address: Address) -> bool:
        """Whether this box has an address."""
        return any(interface.ip == address for _, interface in self._interfaces())

    def put(self, addresses: Mapping[Address, str]) -> list[Address]:
        """Put each address on its interface, where it is not there yet; those that were not.

        The neighbours are told at once: they may have another machine's for it. Raises OSError.
        """
        present = {interface.ip for _, interface in self._interfaces()}
        missing = [address for address in addresses if address not in present]
        for address in missing:
            self._add(address, addresses[address])
        return missing

    def take(self, address: Address, interface: str) -> None:
        """Take an address away again; one that is not there is fine."""
        with suppress(NetlinkError):
            index = self._index(interface)
            if index is not None:
                self._links.addr("del", index=index, address=str(address), prefixlen=address.max_prefixlen)

    def set(self, wanted: Mapping[str, str]) -> list[str]:
        """Make the kernel's settings so; those that were otherwise. Raises OSError."""
        changed = []
        for name, value in wanted.items():
            path = SYSCTL / name
            if path.read_text().strip() != value:
                path.write_text(value)
                changed.append(f"{name.replace('/', '.')} = {value}")
        return changed

    def _add(self, address: Address, interface: str) -> None:
        index = self._index(interface)
        if index is None:
            raise OSError(f"interface {interface!r}, where {address} belongs, does not exist")
        options = _IPV6_OPTIONS if address.version == 6 else {}
        self._links.addr("add", index=index, address=str(address), prefixlen=address.max_prefixlen, **options)
        if isinstance(address, IPv4Address):
            self._announce(address, index, interface)

    def _announce(self, address: IPv4Address, index: int, interface: str) -> None:
        link = next(iter(self._links.get_links(index)))
        with suppress(OSError, ValueError):  # an interface without Ethernet has no neighbours to tell
            mac = Mac.parse(str(link.get("address")))
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
                sender.bind((interface, 0))
                sender.send(arp.encode_announcement(mac, address))

    def _index(self, interface: str) -> int | None:
        found = self._links.link_lookup(ifname=interface)
        return int(found[0]) if found else None

    def _names(self) -> dict[int, str]:
        return {link["index"]: str(link.get("ifname")) for link in self._links.get_links()}

    def _interfaces(self) -> list[tuple[int, IPv4Interface | IPv6Interface]]:
        return [
            (item["index"], ip_interface((item.get("local") or item.get("address"), item["prefixlen"])))
            for item in self._links.get_addr()
        ]
