"""Where each number that `GET /metrics` shows is read: one row each."""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from pxeboot.dhcp.server import DhcpServer
from pxeboot.inventory.progress import Progress
from pxeboot.inventory.store import Store
from pxeboot.metrics import Metric, Numbers
from pxeboot.site import Site
from pxeboot.tftp.server import TftpServer


@dataclass(frozen=True, slots=True)
class Sources:
    """Who counts. The lists may grow after they are handed over."""

    site: Site
    store: Store
    progress: Progress
    tftp: Sequence[TftpServer]
    dhcp: Collection[DhcpServer]


def metrics_of(sources: Sources) -> list[Metric]:
    """All there are."""
    return [*_of_dhcp(sources), *_of_tftp(sources), *_of_machines(sources)]


def _of_dhcp(sources: Sources) -> list[Metric]:
    servers = sources.dhcp
    return [
        Metric("counter", "dhcp_requests", "DHCP messages from clients and relays.", "type",
               lambda: _summed({kind.name.lower(): number for kind, number in server.received.items()}
                               for server in servers)),
        Metric("counter", "dhcp_dropped", "DHCP datagrams not looked at: more came than could be answered "
               "(oldest first, or by the kernel), or they were malformed.", "why",
               lambda: _summed(server.dropped for server in servers)),
    ]  # fmt: skip


def _of_tftp(sources: Sources) -> list[Metric]:
    servers = sources.tftp
    return [
        Metric("counter", "tftp_transfers", "TFTP reads that have ended; a size probe wants no more.",
               "result", lambda: _summed(server.results for server in servers)),
        Metric("counter", "tftp_bytes", "Bytes of content that TFTP clients acknowledged.", "",
               _one(lambda: sum(server.acknowledged_bytes for server in servers))),
        Metric("counter", "tftp_retransmissions", "TFTP packets sent more than once.", "",
               _one(lambda: sum(server.retransmissions for server in servers))),
        Metric("counter", "tftp_dropped", "Datagrams at TFTP's ports that were no TFTP.", "",
               _one(lambda: sum(server.dropped for server in servers))),
        Metric("gauge", "tftp_under_way", "TFTP reads under way.", "",
               _one(lambda: sum(server.under_way for server in servers))),
        Metric("gauge", "tftp_queued", "TFTP reads that wait for others to end.", "",
               _one(lambda: sum(server.queued for server in servers))),
    ]  # fmt: skip


def _of_machines(sources: Sources) -> list[Metric]:
    async def by_stage() -> Numbers:
        counts: Counter[str] = Counter()
        for node in await sources.store.nodes():
            boot = await sources.store.boot(node.mac)
            if boot is not None:
                counts[boot.stage.value] += 1
        return counts

    async def leases() -> Numbers:
        now = time.time()
        active = [lease.address for lease in await sources.store.leases() if lease.active(now)]
        subnets = [network.config.subnet for network in sources.site.networks]
        return {str(subnet): sum(address in subnet for address in active) for subnet in subnets}

    progress = sources.progress
    return [
        Metric("counter", "sent_bytes", "Bytes of files sent to machines that boot.", "protocol",
               lambda: dict(progress.sent_bytes)),
        Metric("counter", "boot_stages", "Stages of boots that were entered.", "stage",
               lambda: {stage.value: number for stage, number in progress.entered.items()}),
        Metric("gauge", "nodes", "Nodes by the stage of their last boot.", "stage", by_stage),
        Metric("gauge", "leases", "Addresses leased at this moment.", "subnet", leases),
    ]  # fmt: skip


def _summed(parts: Iterable[Numbers]) -> Numbers:
    total: dict[str, float] = {}
    for part in parts:
        for value, number in part.items():
            total[value] = total.get(value, 0) + number
    return total


def _one(read: Callable[[], float]) -> Callable[[], Numbers]:
    return lambda: {"": read()}
