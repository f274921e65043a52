"""What one machine is told to boot: node, group, image and token brought together, anew for each boot."""

import logging
import time
from dataclasses import dataclass
from ipaddress import IPv4Address

from pxeboot.config import GroupConfig
from pxeboot.dhcp import options
from pxeboot.dhcp.terms import make_terms
from pxeboot.errors import PxebootError
from pxeboot.image.library import Image, Library
from pxeboot.inventory.node import Node, group_of
from pxeboot.inventory.progress import Progress
from pxeboot.inventory.store import Store
from pxeboot.mac import Mac
from pxeboot.pxe.script import Https, Instructions
from pxeboot.site import Network, Site
from pxeboot.web.token import LIFETIME_SECONDS, Claim, sign

log = logging.getLogger(__name__)

Addresses = tuple[str, IPv4Address | None, tuple[IPv4Address, ...]]
"""A machine's own with its prefix length, its router, its DNS servers."""
REUSE_SECONDS = 3600.0
"""How long a loader that asks again in the same boot is told the very same, its token too."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a machine is told to boot nothing, for its console and for the log."""

    reason: str


@dataclass(frozen=True, slots=True)
class _Told:
    """What a machine was told last, from what, and until when (Unix seconds) that may be repeated."""

    source: tuple[object, ...]
    instructions: Instructions
    until: float


class Orders:
    """Writes the instructions of a boot when its loader asks for them."""

    def __init__(self, site: Site, store: Store, progress: Progress, library: Library, secret: bytes) -> None:
        self._site = site
        self._store = store
        self._progress = progress
        self._library = library
        self._secret = secret
        self._told: dict[Mac, _Told] = {}  # of nodes only, so no more than there are

    async def for_machine(self, mac: Mac, server: IPv4Address, loader: str) -> Instructions | Refusal:
        """The instructions for the boot that this machine is in, with a token made for it.

        `server` is our address as the machine reaches it; `loader` is what asks, for the record.
        """
        node = await self._store.node(mac)
        group = group_of(node, self._site.config) if node else None
        if node is None or group is None:
            return self._refuse(mac, f"no group claims {mac}")
        try:
            image = self._library.bootable(group.image)
        except PxebootError as error:
            return self._refuse(mac, str(error))
        boot = await self._progress.ordered(mac, image.digest, loader)
        network, address = await self._leased(mac)
        source = (boot.id, image.digest, server, network, address, node, group, self._site.config)
        known, now = self._told.get(mac), time.time()
        if known is not None and known.source == source and now < known.until:
            log.debug("%s: asks again", mac)
            return known.instructions
        claim = Claim(boot.id, mac, image.digest, int(now) + LIFETIME_SECONDS)
        log.info("%s: boots %s, image %s (%s)", mac, node.name, group.image, image.digest[:12])
        addresses = _addresses(network, address, node, group, server)
        told = self._instructions(node, group, image, server, addresses, sign(claim, self._secret))
        self._told[mac] = _Told(source, told, now + REUSE_SECONDS)
        return told

    def _refuse(self, mac: Mac, reason: str) -> Refusal:
        log.warning("%s: nothing to boot: %s", mac, reason)
        return Refusal(reason)

    def _instructions(
        self,
        node: Node,
        group: GroupConfig,
        image: Image,
        server: IPv4Address,
        addresses: Addresses,
        token: str,
    ) -> Instructions:
        base, secure = self._site.base_url(server), self._site.https_url
        root = image.manifest.artefacts.root
        address, router, dns = addresses
        return Instructions(
            mac=node.mac,
            name=node.name,
            url=f"{base}/boot/{token}",
            script_url=f"{base}/ipxe/{node.mac}",
            image=image.digest,
            root_sha256=root.sha256,
            root_size=root.size,
            kernel_args=group.kernel_args,
            address=address,
            router=router,
            dns=dns,
            https=Https(f"{secure}/boot/{token}", server, int(time.time())) if secure else None,
        )

    async def _leased(self, mac: Mac) -> tuple[Network | None, IPv4Address | None]:
        """The network in which a machine has a lease, and its address there."""
        now = time.time()
        for network in self._site.leasing:
            lease = await self._store.lease_of(network.config.subnet, mac)
            if lease is not None and lease.active(now):
                return network, lease.address
        return None, None


def _addresses(
    network: Network | None, address: IPv4Address | None, node: Node, group: GroupConfig, server: IPv4Address
) -> Addresses:
    """The machine's own lease with what DHCP gives it, so that the initrd need not ask for it again."""
    if network is None:
        return "", None, ()
    prefix = f"{address}/{network.config.subnet.prefixlen}"
    terms = make_terms(network, group, node, server, network.config.lease_seconds)
    routers = terms.addresses(options.ROUTER)
    return prefix, routers[0] if routers else None, terms.addresses(options.DOMAIN_NAME_SERVER)
