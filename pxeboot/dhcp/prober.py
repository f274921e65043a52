"""Probes addresses on one interface with ARP, ahead of need and on demand.

Through relays nothing is probed. ARP does not pass them; a ping would, but hosts that drop it look free, its
answer names no hardware address, so that the machine that asks cannot be told from a squatter, and every ping
to a free address makes the router ask for it by ARP. There, the machine's own DECLINE has to do.
"""

import asyncio
import contextlib
import logging
import socket
import time
from ipaddress import IPv4Address, IPv4Network

from pxeboot.dhcp import arp
from pxeboot.dhcp.conflict import MAX_PER_HOLDER, Conflict, Probing
from pxeboot.errors import MalformedPacket
from pxeboot.inventory.pool import DECLINE_SECONDS
from pxeboot.inventory.store import Store
from pxeboot.mac import Mac
from pxeboot.site import Network, Site
from pxeboot.tasks import Tasks

log = logging.getLogger(__name__)

TICK_SECONDS = 0.02
"""Between two rounds while something is probed."""
REFILL_SECONDS = 0.1
"""Between two looks for addresses to probe while the stock is used."""
IDLE_SECONDS = 10.0
"""The same while it is not: leases expire, and what was probed grows old."""
BATCH = 64
_ARPHRD_ETHER = 1
_FRAME_BYTES = 64


async def choose(
    store: Store,
    prober: "Prober | None",
    subnet: IPv4Network,
    mac: Mac,
    wanted: IPv4Address | None,
    hold_seconds: float,
) -> IPv4Address | None:
    """Hold an address for a machine: one that it had, or one that nobody else answers for.

    None: none is left. Without a `prober` nothing is asked on the wire.
    """
    address = await choose_at_once(store, prober, subnet, mac, wanted, time.time(), hold_seconds)
    if prober is None or not prober.probes or address is not None:
        return address
    before = await store.lease_of(subnet, mac)
    while True:
        address = await store.offer(subnet, mac, wanted, time.time(), hold_seconds)
        if address is None or (
            before is not None and before.address == address and not prober.awaited(address)
        ):
            return address
        if await prober.is_free(address, mac):
            return address
        has = await store.lease_of(subnet, mac)
        if has is not None and has.address == address:
            return address  # acknowledged while we waited: it will find the other by itself, and decline
        # Not that one, then; better than any other is the one it had.
        before = None if before is None or before.address == address else before
        wanted = before.address if before is not None else None


async def choose_at_once(
    store: Store,
    prober: "Prober | None",
    subnet: IPv4Network,
    mac: Mac,
    wanted: IPv4Address | None,
    now: float,
    hold_seconds: float,
) -> IPv4Address | None:
    """`choose`, where no probe has to be waited for. None: one has, or none is left; nothing is held."""
    if prober is None or not prober.probes:
        return await store.offer(subnet, mac, wanted, now, hold_seconds)
    before = await store.lease_of(subnet, mac)
    if before is None:
        return await _from_stock(store, prober, subnet, mac, wanted, now, hold_seconds)
    kept = await store.preferred(subnet, mac, wanted, now)
    if kept != before.address or prober.awaited(kept):
        return None
    return await store.offer(subnet, mac, wanted, now, hold_seconds)


async def _from_stock(
    store: Store,
    prober: "Prober",
    subnet: IPv4Network,
    mac: Mac,
    wanted: IPv4Address | None,
    now: float,
    hold_seconds: float,
) -> IPv4Address | None:
    """Hold a probed address for a newcomer; None where it wants or must have a certain one."""
    if wanted is not None or await store.preferred(subnet, mac, None, now) is not None:
        return None
    while (stocked := prober.draw()) is not None:
        if await store.preferred(subnet, mac, stocked, now) == stocked:  # not given to somebody meanwhile
            return await store.offer(subnet, mac, stocked, now, hold_seconds)
    return None


class Prober:
    """Knows which addresses of an interface's network are free, and quarantines those that are not."""

    def __init__(self, interface: str, site: Site, store: Store) -> None:
        self._interface = interface
        self._site = site
        self._store = store
        self._probing = Probing()
        self._results: dict[IPv4Address, asyncio.Future[bool]] = {}
        self._tasks = Tasks()
        self._taken, self._started = asyncio.Event(), asyncio.Event()
        self._raw: socket.socket | None = None
        self._mac = Mac("00:00:00:00:00:00")
        self._unprobed = 0  # offered without, since that was last told, because too many waited

    async def start(self) -> None:
        """Open the socket and begin to fill the stock. Raises OSError."""
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        raw.setblocking(False)
        raw.bind((self._interface, arp.ETHERTYPE))
        *_, kind, address = raw.getsockname()
        if kind != _ARPHRD_ETHER:
            log.info("no conflict probes on %s: it is not Ethernet", self._interface)
            raw.close()
            return
        self._raw, self._mac = raw, Mac.from_bytes(address)
        asyncio.get_running_loop().add_reader(raw.fileno(), self._readable, raw)
        self._tasks.keep(self._keep_stock, f"stock of probed addresses on {self._interface}")
        self._tasks.keep(self._probe, f"conflict probes on {self._interface}")

    async def close(self) -> None:
        """Stop probing. Nobody may wait for a result any more."""
        if self._raw is not None:
            asyncio.get_running_loop().remove_reader(self._raw.fileno())
        await self._tasks.close()
        if self._raw is not None:
            self._raw.close()

    @property
    def probes(self) -> bool:
        """Whether addresses are probed here at all: on Ethernet, and where it is not switched off."""
        return self._raw is not None and self._network() is not None

    def awaited(self, address: IPv4Address) -> bool:
        """Whether a machine waits for what the probe of this address will show."""
        return self._probing.awaited(address)

    def draw(self) -> IPv4Address | None:
        """Take an address out of the stock: probed of late, and answered for by nobody."""
        address = self._probing.next_free()
        if address is not None:
            self._probing.take(address)
            self._taken.set()
        return address

    async def is_free(self, address: IPv4Address, client: Mac) -> bool:
        """Whether nobody but `client` answers for an address: at once from the stock, else after a probe.

        False: it is in quarantine. True also where nothing can be probed, or too many wait already.
        """
        if self._probing.take(address):
            self._taken.set()
            return True
        if not self.probes:
            return True
        if not self._probing.demand(address, client):
            self._unprobed += 1
            return True
        self._go_on()
        self._started.set()
        result = self._results.setdefault(address, asyncio.get_running_loop().create_future())
        return await asyncio.shield(result)

    async def _keep_stock(self) -> None:
        while True:
            network = self._network()
            if network is not None:
                now = asyncio.get_running_loop().time()
                self._probing.refresh(now)
                shortage = self._probing.shortage
                if shortage:
                    subnet = network.config.subnet
                    self._probing.add(await self._store.candidates(subnet, shortage, time.time()))
                self._started.set()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._taken.wait(), IDLE_SECONDS)
            self._taken.clear()
            await asyncio.sleep(REFILL_SECONDS)
            if self._unprobed and not self._taken.is_set():  # the storm is over
                log.info("%s: %d addresses were offered unprobed in a storm", self._interface, self._unprobed)
                self._unprobed = 0

    async def _probe(self) -> None:
        while True:
            await self._started.wait()
            while self._probing.busy:
                self._go_on()
                await asyncio.sleep(TICK_SECONDS)
            self._started.clear()

    def _network(self) -> Network | None:
        """The interface's network as configured now, where it is to be probed."""
        for network in self._site.networks:
            config = network.config
            if config.interface == self._interface:
                return network if config.mode == "dhcp" and config.probe_conflicts else None
        return None

    def _go_on(self) -> None:
        told = self._probing.tick(asyncio.get_running_loop().time())
        assert self._raw is not None
        try:
            for address in told.ask:
                self._raw.send(arp.encode_probe(self._mac, address))
        except OSError as error:
            log.debug("%s: a probe was not sent: %s", self._interface, error)
        for address in told.free:
            self._tell(address, True)

    def _tell(self, address: IPv4Address, free: bool) -> None:
        result = self._results.pop(address, None)
        if result is not None:
            result.set_result(free)

    def _readable(self, raw: socket.socket) -> None:
        for _ in range(BATCH):
            try:
                claim = arp.decode(raw.recv(_FRAME_BYTES))
            except MalformedPacket as error:
                log.debug("dropped a frame on %s: %s", self._interface, error)
                continue
            except OSError:
                return  # no more, or the interface is down
            conflict = self._probing.hear(claim)
            if conflict is not None:
                self._tasks.spawn(self._quarantine(conflict), "quarantine")

    async def _quarantine(self, conflict: Conflict) -> None:
        address, holder = conflict.address, conflict.holder
        network = self._site.network_of(address)
        kept = network is not None
        try:
            if network is not None:
                kept = await self._store.quarantine(network.config.subnet, address, holder, time.time())
        except OSError as error:
            log.error("%s: the quarantine of %s is not on disk: %s", holder, address, error)
        finally:
            self._tell(address, False)
        if not kept:
            return  # leased meanwhile, to him who answered
        log.warning(
            "%s: has %s, which is in our pool and not its lease: not given to others for %d minutes; "
            "take the address off that machine, or out of the pool",
            holder,
            address,
            DECLINE_SECONDS // 60,
        )
        if conflict.count == MAX_PER_HOLDER:
            log.error(
                "%s: answers for %d addresses of the pool, like a router with proxy ARP: ignored from now; "
                "mend it, or set probe_conflicts = false for this network",
                holder,
                conflict.count,
            )
