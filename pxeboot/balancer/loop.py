"""The balancer: keeps the kernel's table as the configuration and the nodes' state want it.

A round reads everything anew: the configuration, the inventory, the verdicts of the checks, and what the
kernel has; then it changes the difference. So it does not matter what it missed, what somebody else changed,
or that this process has just been started. Events only bring the next round forward.
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address
from typing import TypeVar

from pxeboot.balancer import director, ipvs
from pxeboot.balancer.check import CheckConfig
from pxeboot.balancer.checker import Checker
from pxeboot.balancer.equipment import is_equipped
from pxeboot.balancer.plan import Change, plan
from pxeboot.balancer.roster import Memory, Peer, Place, Roster, address_in, begin, muster
from pxeboot.balancer.service import Address, ServiceConfig
from pxeboot.balancer.table import Entry, Made, ServiceKey
from pxeboot.balancer.target import Target
from pxeboot.errors import PxebootError
from pxeboot.events import Bus, Event
from pxeboot.inventory.boot import UP, Boot, Stage
from pxeboot.inventory.node import Node, group_of
from pxeboot.inventory.progress import Progress
from pxeboot.inventory.store import Store
from pxeboot.mac import Mac
from pxeboot.site import Site
from pxeboot.tasks import Tasks

log = logging.getLogger(__name__)

ROUND_SECONDS = 1.0
"""Without any event: how long what somebody changed in the kernel may stand."""
PAUSE_FACTOR = 2.0
"""Rounds brought forward leave so many times their own length between them: a third of one core at most."""
MIN_PAUSE_SECONDS = 0.02
NODES_AT_ONCE = 200
"""Read from the inventory, which is done in the event loop, before others have their turn: about 1 ms."""
LISTEN_SECONDS = 60.0
OPEN_SECONDS = 10.0
"""How often a kernel without IPVS is asked again."""
MAX_TOLD = 1000
"""Errors remembered as told; beyond it all may be told again."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Standing:
    """A service after the last round."""

    config: ServiceConfig
    roster: Roster


class Balancer:
    """The services of a site. `start` first; `close` leaves the kernel as it is."""

    def __init__(self, site: Site, store: Store, progress: Progress, bus: Bus) -> None:
        self._site = site
        self._store = store
        self._progress = progress
        self._bus = bus
        self._tasks = Tasks()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="balancer")
        self._woken = asyncio.Event()
        self._checker = Checker(self.wake)
        self._kernel: ipvs.Kernel | None = None
        self._director: director.Director | None = None
        self._memory: dict[str, Memory] = {}
        self._stages: dict[Mac, str] = {}
        self._told: set[str] = set()
        self.cleared = False
        """Whether an operator had everything taken down."""
        self._no_kernel: PxebootError | None = None
        self._no_place: dict[str, PxebootError] = {}
        self._turn = asyncio.Lock()
        self.standings: dict[str, Standing] = {}
        """By name, as the last round left them."""

    async def start(self) -> None:
        """Open the kernel's table and make it true once. Without IPVS that is told, and tried again later:
        machines can boot all the same.
        """
        await self._try_to_open()
        await self.round()
        self._tasks.keep(self._follow, "balancer's events")
        self._tasks.keep(self._run, "balancer")

    async def close(self) -> None:
        """Stop looking; connections and table stay."""
        await self._tasks.close()
        await self._checker.close()
        await self._do(self._let_go)
        self._thread.shutdown()

    def wake(self) -> None:
        """Something has changed: make the next round soon."""
        self._woken.set()

    def resume(self) -> None:
        """Serve again after `clear`: the configuration has been read anew."""
        self.cleared = False
        self.wake()

    def trouble(self, service: str) -> PxebootError | None:
        """Why a service cannot be in the kernel at all."""
        return self._no_kernel or self._no_place.get(service)

    async def clear(self) -> list[ServiceKey]:
        """Take everything of ours out of the kernel and leave it so until `resume`; what was taken out.

        Raises PxebootError where the kernel has no IPVS.
        """
        async with self._turn:
            if self._no_kernel is not None:
                raise self._no_kernel
            self.cleared = True
            made = await self._store.made()
            gone = await self._do(partial(take_down, self._the_kernel(), self._the_director(), made))
            for key in made:
                await self._store.forget_made(key)
            self.standings, self._memory = {}, {}
            self._checker.watch({})
            await self._tell_stages(await self._peers(self._site.config.service))
        log.warning("services are cleared until the configuration is read again")
        return gone

    async def table(self) -> dict[ServiceKey, Entry]:
        """What the kernel has now, with its counters; nothing where it has no IPVS."""
        if self._kernel is None:
            return {}
        return await self._do(partial(self._kernel.table, traffic=True))

    async def round(self) -> None:
        """Look at everything and change what is not so."""
        async with self._turn:
            if not self.cleared and self._kernel is not None:
                await self._round()

    async def _round(self) -> None:
        configs = self._site.config.service
        peers = await self._peers(configs)
        self._watch(configs, peers)
        made = await self._remember(configs)
        configs = tuple(config for config in configs if ServiceKey.of(config) in made)
        standings, changes = await self._do(partial(self._decide, configs, peers, made.keys()))
        wanted = {item.roster.wanted.virtual.key for item in standings.values()}
        refused = await self._do(partial(self._the_kernel().apply, changes)) if changes else []
        await self._do(partial(self._set_up, configs, [made[key] for key in wanted]))
        self._tell_changes(standings, changes, refused)
        self.standings = standings
        self._memory = {name: item.roster.memory for name, item in standings.items()}
        await self._forget({key: item for key, item in made.items() if key not in wanted}, made, wanted)
        await self._tell_stages(peers)

    def _decide(
        self, configs: Iterable[ServiceConfig], peers: Mapping[str, list[Peer]], ours: Collection[ServiceKey]
    ) -> tuple[dict[str, Standing], list[Change]]:
        """Runs in the thread too: with a thousand nodes it takes 30 ms, which others need not wait for."""
        actual, now = self._the_kernel().table(), time.time()
        standings = {}
        for config in configs:
            entry, nodes = actual.get(ServiceKey.of(config)), peers[config.name]
            memory = self._memory.get(config.name) or begin(config, nodes, entry)
            standings[config.name] = Standing(config, muster(config, nodes, entry, memory, now))
        wanted = {item.roster.wanted.virtual.key: item.roster.wanted for item in standings.values()}
        return standings, plan(wanted, actual, ours)

    # What is known of the nodes

    async def _peers(self, configs: Iterable[ServiceConfig]) -> dict[str, list[Peer]]:
        """The nodes behind each service."""
        behind: dict[str, list[ServiceConfig]] = defaultdict(list)
        peers: dict[str, list[Peer]] = {}
        for config in configs:
            behind[config.group].append(config)
            peers[config.name] = []
        drains = await self._store.drains()
        for number, node in enumerate(await self._store.nodes() if behind else ()):
            if number % NODES_AT_ONCE == NODES_AT_ONCE - 1:
                await asyncio.sleep(0)
            group = group_of(node, self._site.config)
            services = behind.get(group.name, ()) if group is not None else ()
            if not services:
                continue
            boot = await self._store.boot(node.mac)
            address = await self._address(node, boot)
            for config in services:
                since = drains.get((node.mac, config.name), drains.get((node.mac, "")))
                peers[config.name].append(self._peer(config, node, boot, address, since))
        return peers

    def _peer(
        self,
        config: ServiceConfig,
        node: Node,
        boot: Boot | None,
        address: IPv4Address | None,
        drained: float | None,
    ) -> Peer:
        place = address_in(config, node.mac, address)
        health = None
        if config.health_check is not None and place is not None:
            health = self._checker.health(_target(config, node.mac, place, node.name))
        equipped = boot is not None and is_equipped(config, node.mac, boot.services)
        return Peer(node.mac, node.name, place, boot.stage if boot else None, drained, health, equipped)

    async def _address(self, node: Node, boot: Boot | None) -> IPv4Address | None:
        """Where the node said `ready` from; of one that boots, what it has leased or had before."""
        if boot is not None and boot.address is not None:
            return boot.address
        now = time.time()
        for network in self._site.leasing:
            lease = await self._store.lease_of(network.config.subnet, node.mac)
            if lease is not None and lease.active(now):
                return lease.address
        return next((old.address for old in await self._store.boots(node.mac) if old.address), None)

    def _watch(self, configs: Iterable[ServiceConfig], peers: Mapping[str, list[Peer]]) -> None:
        targets: dict[Target, CheckConfig] = {}
        for config in configs:
            check = config.health_check
            if check is None:
                continue
            for peer in peers[config.name]:
                if peer.stage in UP and peer.address is not None:
                    targets[_target(config, peer.mac, peer.address, peer.name)] = check
        self._checker.watch(targets)

    # What we have made

    async def _remember(self, configs: Iterable[ServiceConfig]) -> dict[ServiceKey, Made]:
        """Note what we are about to make, so that it is ours to take down whatever happens next."""
        made = dict(await self._store.made())
        self._no_place = {}
        for config in configs:
            key = ServiceKey.of(config)
            known = made.get(key)
            if known is not None and known.vip == config.vip and (config.manage_vip or not known.interface):
                continue
            ours = {item.vip: item.interface for item in made.values()}
            try:
                interface = ours.get(config.vip, "") or await self._do(partial(self._home, config))
            except PxebootError as error:
                self._no_place[config.name] = error
                self._tell_once(f"{error}; {error.hint}")
                continue
            made[key] = Made(key, config.vip, interface if config.manage_vip else "")
            await self._store.save_made(made[key])
            if known is not None and known.interface and all(known.vip != item.vip for item in made.values()):
                await self._do(partial(self._the_director().take, known.vip, known.interface))
        return made

    async def _forget(
        self,
        old: Mapping[ServiceKey, Made],
        made: Mapping[ServiceKey, Made],
        wanted: Iterable[ServiceKey],
    ) -> None:
        """What is no longer wanted is out of the kernel; its address goes unless another service has it."""
        kept = {made[key].vip for key in wanted}
        for key, item in old.items():
            if item.interface and item.vip not in kept:
                await self._do(partial(self._the_director().take, item.vip, item.interface))
            await self._store.forget_made(key)
            log.info("service %s is gone: the configuration has it no more", key)

    # In the thread

    async def _try_to_open(self) -> None:
        try:
            await self._do(self._open)
        except PxebootError as error:
            self._no_kernel = error
            self._tell_once(f"services are not in the kernel: {error}; {error.hint}")
            return
        if self._no_kernel is not None:
            log.info("the kernel has IPVS now")
        self._no_kernel = None

    async def _do(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _open(self) -> None:
        ipvs.load()
        self._kernel, self._director = ipvs.Kernel(), director.Director()

    def _let_go(self) -> None:
        for item in (self._kernel, self._director):
            if item is not None:
                item.close()

    def _home(self, config: ServiceConfig) -> str:
        """Where we put its address; "" where it is not ours to put."""
        if not config.manage_vip or self._the_director().has(config.vip):
            return ""
        return self._the_director().home(config)

    def _set_up(self, configs: Iterable[ServiceConfig], made: list[Made]) -> None:
        addresses: dict[Address, str] = {item.vip: item.interface for item in made if item.interface}
        try:
            for line in self._the_director().set(director.settings(configs, set(addresses.values()))):
                log.info("the kernel's %s", line)
            for address in self._the_director().put(addresses):
                log.info("%s is on %s", address, addresses[address])
        except OSError as error:
            self._tell_once(f"the director cannot be set up: {error}")

    def _the_kernel(self) -> ipvs.Kernel:
        assert self._kernel is not None  # it has been started
        return self._kernel

    def _the_director(self) -> director.Director:
        assert self._director is not None
        return self._director

    # Telling

    def _tell_changes(
        self,
        standings: Mapping[str, Standing],
        changes: Iterable[Change],
        refused: Iterable[tuple[Change, str]],
    ) -> None:
        for change in changes:
            log.debug("%s", change)
        for change, reason in refused:
            self._tell_once(f"the kernel refused to {change}: {reason}")
        for name, standing in standings.items():
            before = self.standings.get(name)
            _tell_places(name, before.roster.places if before else (), standing.roster.places)
            _tell_quorum(name, before, standing)

    def _tell_once(self, text: str) -> None:
        if text not in self._told:
            if len(self._told) >= MAX_TOLD:
                self._told.clear()
            self._told.add(text)
            log.error("%s", text)

    async def _tell_stages(self, peers: Mapping[str, list[Peer]]) -> None:
        """Nodes in service are `serving`, drained ones `draining`, others that are up `ready`."""
        at_work: set[Mac] = set()
        drained: dict[Mac, bool] = {}
        for standing in self.standings.values():
            at_work |= {
                place.mac for place in standing.roster.places if place.mac is not None and place.weight > 0
            }
        stages: dict[Mac, Stage | None] = {}
        for peer in (peer for group in peers.values() for peer in group):
            stages[peer.mac] = peer.stage
            drained[peer.mac] = drained.get(peer.mac, True) and peer.drained is not None
        moves = {}
        for mac, stage in stages.items():
            resting = Stage.DRAINING if drained[mac] else Stage.READY
            now = Stage.SERVING if mac in at_work else resting
            if stage in UP and stage is not now:
                moves[mac] = now
        await asyncio.gather(*(self._progress.placed(mac, stage) for mac, stage in moves.items()))

    # When

    async def _run(self) -> None:
        while self._kernel is None:
            await asyncio.sleep(OPEN_SECONDS)
            await self._try_to_open()
        while True:
            begun = time.monotonic()
            await self.round()
            pause = max(MIN_PAUSE_SECONDS, PAUSE_FACTOR * (time.monotonic() - begun))
            await asyncio.sleep(pause)
            try:
                async with asyncio.timeout(ROUND_SECONDS):
                    await self._woken.wait()
            except TimeoutError:
                continue
            self._woken.clear()

    async def _follow(self) -> None:
        async with self._bus.subscribe() as news:
            while True:
                event = await news.next(LISTEN_SECONDS)
                if event is not None and self._matters(event):
                    self.wake()

    def _matters(self, event: Event) -> bool:
        """A heartbeat does not: only a boot's new stage, or an operator's word."""
        if event.kind != "boot":
            return True
        mac, stage = event.about["mac"], event.about["stage"]
        before = self._stages.get(mac)
        self._stages[mac] = stage
        return bool(before != stage)


def take_down(
    kernel: ipvs.Kernel, box: director.Director, made: Mapping[ServiceKey, Made]
) -> list[ServiceKey]:
    """Delete the services that we have made and take their addresses away; those that were there. Blocks."""
    changes = plan({}, kernel.table(), made.keys())
    refused = {change.virtual.key for change, _ in kernel.apply(changes)}
    for item in made.values():
        if item.interface:
            box.take(item.vip, item.interface)
    return [change.virtual.key for change in changes if change.virtual.key not in refused]


def _target(config: ServiceConfig, mac: Mac, address: Address, node: str) -> Target:
    return Target(config.name, mac, address, config.check_port, node)


def _tell_places(name: str, before: Iterable[Place], after: Iterable[Place]) -> None:
    known = {(place.mac, place.address, place.port): place.state for place in before}
    for place in after:
        if known.get((place.mac, place.address, place.port)) is not place.state:
            last = place.health.last if place.health is not None else None
            why = f" ({last.text})" if last is not None and not last.good else ""
            log.info("%s: %s in service %s%s", place.mac or place.address, place.state.value, name, why)


def _tell_quorum(name: str, before: Standing | None, after: Standing) -> None:
    was = before.roster if before is not None else None
    if was is not None and was.up != after.roster.up:
        log.warning("service %s has %s its quorum", name, "won" if after.roster.up else "lost")
    if after.roster.memory.members.held and not (was is not None and was.memory.members.held):
        log.error("service %s: all its nodes fail at once; they are kept, as it is our own network", name)
