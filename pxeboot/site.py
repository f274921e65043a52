"""The configuration in force, with our own addresses in it; replaced as a whole when the file is reread."""

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from pxeboot.config import Config, NetworkConfig
from pxeboot.pxe.arch import Loaders, choose_loaders

_NOWHERE = IPv4Address(0)


@dataclass(frozen=True, slots=True)
class Network:
    """A configured subnet and how we are reached from it."""

    config: NetworkConfig
    address: IPv4Address | None
    """Our own address in it; None where it is reached through relays only."""


@dataclass(slots=True)
class Site:
    """What holds now. Every server has the same one and looks at it anew for each packet."""

    config: Config
    networks: tuple[Network, ...]
    loaders: Loaders = field(default_factory=lambda: choose_loaders({}))
    https_name: str = ""
    """What our certificate is for, where nodes speak HTTPS from our initrd on."""
    gateways: tuple[IPv6Address, ...] = ()
    """Our IPv6 addresses, where nodes need one: for services whose addresses we translate."""

    def network_for(
        self, interface: str, place: IPv4Address | None, ciaddr: IPv4Address = _NOWHERE
    ) -> Network | None:
        """The network of a DHCP client: by the `place` that its relay or itself names, else by the interface.

        Who is reached through relays only renews without them, from the address it has: a router's packet on
        whichever interface.
        """
        if place is not None:
            return self.network_of(place)
        here = next((item for item in self.networks if item.config.interface == interface), None)
        if ciaddr == _NOWHERE or (here is not None and ciaddr in here.config.subnet):
            return here
        there = self.network_of(ciaddr)
        return there if there is not None and there.config.interface is None else here

    def network_of(self, address: IPv4Address) -> Network | None:
        """The network an address lies in."""
        return next((item for item in self.networks if address in item.config.subnet), None)

    @property
    def leasing(self) -> tuple[Network, ...]:
        """The networks whose machines have their addresses from us."""
        return tuple(item for item in self.networks if item.config.mode == "dhcp")

    def gives(self, address: IPv4Address) -> bool:
        """Whether an address is in a pool of ours, so that nobody else gives it."""
        return any(address in item for network in self.leasing for item in network.config.pool)

    def base_url(self, address: IPv4Address) -> str:
        """Our node-facing HTTP server at one of our addresses; without the port where it is HTTP's own."""
        port = self.config.server.http_port
        return f"http://{address}" if port == 80 else f"http://{address}:{port}"

    @property
    def https_url(self) -> str:
        """Our node-facing HTTPS server by the name of its certificate; "" where there is none."""
        if self.config.https is None:
            return ""
        port = self.config.https.port
        return f"https://{self.https_name}" if port == 443 else f"https://{self.https_name}:{port}"
