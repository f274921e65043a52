"""Where nodes, leases, boots and what the balancer must not forget are kept: what every store promises.

SQLite is the embedded one (`sqlite.py`). Another, for several servers on one database, will follow, so
nothing above this line may know which one it has.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Protocol
from uuid import UUID

from pxeboot.balancer.table import Made, ServiceKey
from pxeboot.config import AddressRange
from pxeboot.inventory.boot import Boot
from pxeboot.inventory.lease import Lease
from pxeboot.inventory.node import Node
from pxeboot.mac import Mac

_FILE = "pxeboot.sqlite"
"""In the state directory."""
BOOTS_KEPT = 20
"""Boot records kept per node; older ones are forgotten."""


@dataclass(frozen=True, slots=True)
class Subnet:
    """What the store has to know of a network to give its addresses."""

    network: IPv4Network
    ranges: tuple[AddressRange, ...]
    own: frozenset[IPv4Address]
    """Never given to a machine: our addresses and the router's."""


class Store(Protocol):
    """Nodes, leases and boots. Times are Unix seconds and come from the caller.

    When a method whose docstring says "on disk" returns, a `kill -9` or a power cut loses nothing of it.
    When it raises OSError the promise must not be made; the next call tries again.
    """

    async def use_subnets(self, subnets: Sequence[Subnet]) -> None:
        """Serve these networks from now on; leases elsewhere stay on disk, unused."""

    async def offer(
        self, network: IPv4Network, mac: Mac, wanted: IPv4Address | None, now: float, hold_seconds: float
    ) -> IPv4Address | None:
        """Choose an address and hold it, in memory, for a moment. None: the pool is exhausted."""

    async def bind(
        self, network: IPv4Network, mac: Mac, address: IPv4Address, now: float, seconds: float
    ) -> bool:
        """Promise the address until `now + seconds`, on disk. False: this machine cannot have it."""

    async def preferred(
        self, network: IPv4Network, mac: Mac, wanted: IPv4Address | None, now: float
    ) -> IPv4Address | None:
        """What `offer` would choose, where it need not search for it. Nothing is held."""

    async def promise(
        self, network: IPv4Network, mac: Mac, address: IPv4Address, now: float, seconds: float
    ) -> bool:
        """`bind` in memory, where the address is the one that `offer` would choose; else False.

        For many at a time: nobody may be told before `written` has returned.
        """

    async def written(self) -> None:
        """Return when all that has been promised until now is on disk."""

    async def extend(self, network: IPv4Network, mac: Mac, now: float, seconds: float) -> None:
        """Prolong the lease of a machine that has shown that it lives, once half of it is over, on disk."""

    async def release(self, network: IPv4Network, mac: Mac, address: IPv4Address, now: float) -> bool:
        """The machine gives the address back, on disk. False: it did not have it."""

    async def decline(self, network: IPv4Network, mac: Mac, address: IPv4Address, now: float) -> bool:
        """The machine found the address in use: nobody gets it for a time, on disk."""

    async def candidates(self, network: IPv4Network, count: int, now: float) -> list[IPv4Address]:
        """Up to `count` addresses that newcomers would be given next, in that order, held for nobody."""

    async def quarantine(self, network: IPv4Network, address: IPv4Address, holder: Mac, now: float) -> bool:
        """`holder` answers for the address: nobody else gets it for a time, on disk. False: it is leased."""

    async def lift(self, network: IPv4Network, address: IPv4Address, now: float) -> bool:
        """End the quarantine of an address, on disk. False: it is in none."""

    async def lease_of(self, network: IPv4Network, mac: Mac) -> Lease | None:
        """The last lease of a machine in a network, whatever its state."""

    async def lease_at(self, address: IPv4Address) -> Lease | None:
        """The last lease of an address."""

    async def leases(self) -> list[Lease]:
        """All leases of the served networks, by address."""

    async def node(self, mac: Mac) -> Node | None:
        """A node by its MAC address."""

    async def nodes(self) -> list[Node]:
        """All nodes, by name."""

    async def node_of_uuid(self, uuid: UUID) -> Node | None:
        """The node that an operator has named by this UUID."""

    async def save_node(self, node: Node) -> None:
        """Add or replace a node, on disk. Raises PxebootError where name, address or UUID is another's."""

    async def save_nodes(self, nodes: Sequence[Node]) -> None:
        """The same for several, all or none; they may exchange names and addresses among themselves."""

    async def move_node(self, mac: Mac, node: Node) -> None:
        """Put `node` in the place of the one at `mac`, which now asks from another card, with its boots, on
        disk. A node that stood at the new address is forgotten."""

    async def forget_node(self, mac: Mac) -> bool:
        """Remove a node with its boots and free its address, on disk. False: there is none."""

    async def boot(self, mac: Mac) -> Boot | None:
        """The present boot of a node."""

    async def boots(self, mac: Mac) -> list[Boot]:
        """The last BOOTS_KEPT boots of a node, newest first."""

    async def save_boot(self, boot: Boot, *, durable: bool = True) -> None:
        """Add or replace a boot record: on disk, or where not `durable` (a heartbeat) for readers only."""

    async def drains(self) -> Mapping[tuple[Mac, str], float]:
        """Since when which node is drained of which service, by its name; "": of all of them."""

    async def save_drain(self, mac: Mac, service: str, since: float | None) -> None:
        """Drain a node of a service ("": of all), or no longer, on disk."""

    async def made(self) -> Mapping[ServiceKey, Made]:
        """The virtual services that we have put into the kernel."""

    async def save_made(self, made: Made) -> None:
        """Remember a virtual service, on disk."""

    async def forget_made(self, key: ServiceKey) -> None:
        """A virtual service is not in the kernel any more, on disk."""

    async def close(self) -> None:
        """Write what is left and let go of the file."""


def store_exists(state_dir: Path) -> bool:
    """Whether a server has ever run with this state directory."""
    return (state_dir / _FILE).exists()


def open_store(state_dir: Path) -> Store:
    """The store of this server. Raises PxebootError where it cannot be opened."""
    from pxeboot.inventory.sqlite import SqliteStore  # noqa: PLC0415  a store's row; its imports stay its own

    return SqliteStore(state_dir / _FILE)
