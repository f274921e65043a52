"""The configuration in force, with our own addresses in it; replaced as a whole when the file is reread."""

from dataclasses import dataclass, field
from ipaddress import IPv4Address

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

    def network_for(self, interface: str, giaddr: IPv4Address) -> Network | None:
        """The network a DHCP packet came from: by its relay where there is one, else by the interface."""
        if giaddr != _NOWHERE:
            return self.network_of(giaddr)
        return next((item for item in self.networks if item.config.interface == interface), None)

    def network_of(self, address: IPv4Address) -> Network | None:
        """The network an address lies in."""
        return next((item for item in self.networks if address in item.config.subnet), None)

    @property
    def leasing(self) -> tuple[Network, ...]:
        """The networks whose machines have their addresses from us."""
        return tuple(item for item in self.networks if item.config.mode == "dhcp")

    def base_url(self, address: IPv4Address) -> str:
        """Our node-facing HTTP server at one of our addresses; without the port where it is HTTP's own."""
        port = self.config.server.http_port
        return f"http://{address}" if port == 80 else f"http://{address}:{port}"
