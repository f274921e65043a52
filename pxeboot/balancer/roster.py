"""Who stands behind a service, with which weight, and why: one round of one service. Pure.

Two rules keep connections whole. A server leaves in two steps: weight 0 first, so that it gets nothing new,
and out of the table once its connections have ended or their time is over; a packet for a server that is not
there any more is dropped. And what the kernel has is the memory: a server found in the table stays as it is
until something is known of it, so that a restart of this process is not seen from outside.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from ipaddress import IPv4Address

from pxeboot.balancer.equipment import eui64
from pxeboot.balancer.health import Candidate, Members, admit, weight
from pxeboot.balancer.service import Address, ServiceConfig
from pxeboot.balancer.table import NO_COUNTS, Counts, Entry, Real, RealId, Virtual
from pxeboot.balancer.target import Health
from pxeboot.inventory.boot import UP, Stage
from pxeboot.mac import Mac

HALF_OPEN_SECONDS = 5.0
"""What a TCP connection that is opening or closing is given: the kernel counts it as inactive, as it does
those that have ended and are remembered for two minutes (ip_vs_proto_tcp.c, tcp_timeouts)."""


class State(Enum):
    """What a node is to a service."""

    SERVING = "serving"
    STARTING = "starting"
    """In service, with a part of its weight yet."""
    HELD = "held"
    """In service although it fails, as all do at once."""
    STANDBY = "standby"
    """Well, but the service has no quorum and its sorry server answers."""
    CHECKING = "checking"
    """Ready, and its check has not decided yet."""
    PREPARING = "preparing"
    """Ready, and it has not set up yet what the service needs (`balancer.equipment`)."""
    FAILING = "failing"
    """Its check fails."""
    LOST = "lost"
    """Its heartbeats have ceased."""
    DRAINING = "draining"
    """It gets nothing new, and finishes what it has."""
    DRAINED = "drained"
    LEAVING = "leaving"
    """No longer of this service; it finishes what it has."""
    ABSENT = "absent"
    """It is not up."""
    SORRY = "sorry"
    """The sorry server, which answers now."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A node of the service's group, as the inventory has it."""

    mac: Mac
    name: str
    address: Address | None
    stage: Stage | None
    drained: float | None = None
    """Since when an operator wants it drained, Unix seconds."""
    health: Health | None = None
    """None where the service has no check."""
    equipped: bool = True
    """Whether it has set up what the service needs of it."""


@dataclass(frozen=True, slots=True)
class Place:
    """What was decided of one server."""

    name: str
    mac: Mac | None
    """None for what is no node: a sorry server, or a server that is none of ours any more."""
    address: Address | None
    port: int
    state: State
    weight: int
    """In the kernel from now on; 0 also where it is not in the table."""
    full: int
    """The weight it has when nothing holds it back."""
    listed: bool
    """Whether it is in the kernel's table from now on."""
    counts: Counts = NO_COUNTS
    health: Health | None = None
    stage: Stage | None = None
    leaves: float | None = None
    """When it goes, connections or not, Unix seconds."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What a round of a service leaves for the next one."""

    members: Members
    leaving: Mapping[RealId, float] = field(default_factory=dict)
    """Since when servers have been leaving without an operator's word."""


@dataclass(frozen=True, slots=True)
class Roster:
    """The outcome of a round: what the kernel should have, who is what, and the memory."""

    wanted: Entry
    places: tuple[Place, ...]
    memory: Memory

    @property
    def up(self) -> bool:
        """Whether the service has its quorum."""
        return self.memory.members.up


def begin(config: ServiceConfig, peers: Iterable[Peer], entry: Entry | None) -> Memory:
    """What is remembered of a service when this process first sees it: what the kernel has of it."""
    reals = entry.reals if entry is not None else {}
    at_work = {name for name, real in reals.items() if real.weight > 0}
    return Memory(Members.found(peer.mac for peer in peers if (peer.address, config.node_port) in at_work))


def muster(
    config: ServiceConfig, peers: Iterable[Peer], entry: Entry | None, memory: Memory, now: float
) -> Roster:
    """Decide who serves. `entry` is what the kernel has of the service now, `now` in Unix seconds."""
    known = _by_address(config, peers)
    members = admit(memory.members, _candidates(known.values(), memory.members), config, now)
    round_ = _Round(config, entry, memory, members, now)
    places = [round_.place(name, peer) for name, peer in known.items()]
    places += round_.strangers(known.keys())
    sorry = round_.sorry()
    places += [sorry] if sorry is not None else []
    reals = {}
    for place in places:
        if place.listed and place.address is not None:
            reals[place.address, place.port] = _real(config, place)
    wanted = Entry(Virtual.of(config), reals)
    return Roster(wanted, tuple(places), Memory(members, round_.leaving))


def _by_address(config: ServiceConfig, peers: Iterable[Peer]) -> dict[RealId | Mac, Peer]:
    """Peers by where they are; one that is up holds over one that once had the address."""
    known: dict[RealId | Mac, Peer] = {}
    for peer in sorted(peers, key=lambda peer: peer.stage in UP):
        if peer.address is None:
            known[peer.mac] = peer
            continue
        name = (peer.address, config.node_port)
        if name in known:
            older = known.pop(name)
            known[older.mac] = replace(older, address=None)
        known[name] = peer
    return known


def _candidates(peers: Iterable[Peer], members: Members) -> list[Candidate]:
    """Who may serve. What a member has set up is not asked again: after a restart it has yet to tell us."""
    return [
        Candidate(peer.mac, peer.health, silent=peer.stage is Stage.LOST)
        for peer in peers
        if peer.drained is None
        and peer.address is not None
        and (peer.equipped or peer.mac in members.joined)
        and (peer.stage in UP or peer.stage is Stage.LOST)
    ]


def _real(config: ServiceConfig, place: Place) -> Real:
    assert place.address is not None
    sorry = config.sorry_server
    if sorry is not None and place.mac is None and place.address == sorry.address:
        real = Real.sorry(config, sorry)
        if real.id == (place.address, place.port):
            return replace(real, weight=place.weight)
    return Real.of(config, place.address, place.weight, place.port)


_FINISHING = frozenset({State.DRAINING, State.LEAVING, State.LOST})


_STILL_THERE = {Stage.REBOOTING: State.LEAVING, Stage.LOST: State.LOST}


def _out_of_work(peer: Peer) -> State:
    """What a node is that is not in service."""
    if peer.stage not in UP:
        # One that boots, or has failed to, has none of the connections it had.
        return _STILL_THERE.get(peer.stage, State.ABSENT) if peer.stage is not None else State.ABSENT
    if peer.drained is not None:
        return State.DRAINING
    if not peer.equipped:
        return State.PREPARING
    if peer.health is not None and peer.health.passing is None:
        return State.CHECKING
    return State.FAILING


@dataclass(slots=True)
class _Round:
    """One round of one service."""

    config: ServiceConfig
    entry: Entry | None
    memory: Memory
    members: Members
    now: float
    leaving: dict[RealId, float] = field(default_factory=dict)

    def place(self, name: RealId | Mac, peer: Peer) -> Place:
        """What one node is to the service."""
        full = self._full(peer)
        state, listed, share = self._judge(name, peer, full)
        return Place(
            peer.name,
            peer.mac,
            peer.address,
            self.config.node_port,
            state,
            share,
            full,
            listed,
            self._counts(name),
            peer.health,
            peer.stage,
            self._end(name) if listed else None,
        )

    def _judge(self, name: RealId | Mac, peer: Peer, full: int) -> tuple[State, bool, int]:
        """State, whether it is in the table, and its weight there."""
        if peer.mac in self.members.joined:
            return self._at_work(peer, full)
        state = _out_of_work(peer)
        if state in _FINISHING:
            stays = self._finishes(name, peer.drained)
            return State.DRAINED if state is State.DRAINING and not stays else state, stays, 0
        stays = state in (State.CHECKING, State.PREPARING) or (
            state is State.FAILING and self.config.on_failure == "quiesce"
        )
        return state, stays and self._there(name), 0

    def _at_work(self, peer: Peer, full: int) -> tuple[State, bool, int]:
        if not self.members.up and self.config.sorry_server is not None:
            return State.STANDBY, True, 0
        if peer.mac in self.members.held:
            return State.HELD, True, full
        share = weight(full, self.members.joined[peer.mac], self.config.slow_start_seconds, self.now)
        return State.SERVING if share == full else State.STARTING, True, share

    def strangers(self, known: Collection[RealId | Mac]) -> list[Place]:
        """Servers in the table that are no node's: a node has gone elsewhere, or somebody added them."""
        if self.entry is None:
            return []
        sorry = self._sorry_id()
        found = [name for name in self.entry.reals if name not in known and name != sorry]
        places = []
        for name in sorted(found, key=str):
            stays = self._finishes(name, None)
            counts, end = self._counts(name), self._end(name)
            places.append(Place(str(name[0]), None, *name, State.LEAVING, 0, 0, stays, counts, leaves=end))
        return places

    def sorry(self) -> Place | None:
        """The sorry server, while it answers or finishes what it has."""
        name = self._sorry_id()
        if name is None:
            return None
        if not self.members.up:
            full = self.config.weight or 1
            return Place("sorry", None, *name, State.SORRY, full, full, True, self._counts(name))
        if self._there(name) and self._finishes(name, None):
            return Place("sorry", None, *name, State.LEAVING, 0, 0, True, self._counts(name))
        return None

    def _sorry_id(self) -> RealId | None:
        server = self.config.sorry_server
        return None if server is None else (server.address, server.port or self.config.port or 0)

    def _full(self, peer: Peer) -> int:
        weights = self.config.weights
        return weights.get(peer.name, weights.get(peer.mac, self.config.weight))

    def _there(self, name: RealId | Mac) -> bool:
        return self.entry is not None and name in self.entry.reals

    def _counts(self, name: RealId | Mac) -> Counts:
        counts = self.entry.counts if self.entry is not None else {}
        return counts.get(name, NO_COUNTS) if isinstance(name, tuple) else NO_COUNTS

    def _end(self, name: RealId | Mac) -> float | None:
        since = self.leaving.get(name) if isinstance(name, tuple) else None
        return None if since is None else since + self.config.drain_seconds

    def _finishes(self, name: RealId | Mac, since: float | None) -> bool:
        """Whether a server that leaves, since then or since it first did, has to stay in the table."""
        if not isinstance(name, tuple) or self.entry is None or name not in self.entry.reals:
            return False
        since = self.leaving[name] = since or self.memory.leaving.get(name, self.now)
        if self.entry.reals[name].weight > 0:
            return True  # weight 0 first: a connection may come in this very moment
        if self.now - since >= self.config.drain_seconds:
            return False
        counts = self._counts(name)
        if self.config.protocol == "tcp" and self.now - since >= HALF_OPEN_SECONDS:
            return counts.active > 0
        return counts.all > 0


def address_in(config: ServiceConfig, mac: Mac, address: IPv4Address | None) -> Address | None:
    """Where a node answers for a service; `address` is its IPv4 one."""
    if config.node_prefix is None:
        return address
    return eui64(mac, config.node_prefix.network_address)
