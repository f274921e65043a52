"""Who is well: verdicts on real servers from single looks, and what a service makes of them.

A node changes its verdict after `rise` or `fall` looks in a row. A service then has three more questions: who
is in service (a node without a verdict stays as it was found), whether enough are (the quorum), and whether
to believe it when all of them fail at once. Time is an argument throughout, in Unix seconds.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from pxeboot.balancer.check import CheckConfig
from pxeboot.balancer.service import ServiceConfig
from pxeboot.balancer.target import HISTORY_KEPT, Health, Outcome
from pxeboot.mac import Mac

TOGETHER_SECONDS = 20.0
"""Failures so close to one another have one cause: heartbeats come every 10 s, and it takes up to 5 s more
until their absence is noticed. Where checks are rarer, it is longer (`together_seconds`)."""
RAMP_STEPS = 10
"""A slow start climbs in so many steps, so that not every round writes to the kernel."""
LATE_SECONDS = 0.25
"""A look that ends so long after its time-out was ended late by us: this process is too busy."""
LONG_AGO = -math.inf
"""When a node joined that was in the kernel's table before this process was there."""


def judge(health: Health, outcome: Outcome, check: CheckConfig) -> Health:
    """The health of a target after one more look.

    `rise` good looks in a row make it pass, `fall` bad ones make it fail, whatever it was before; so one that
    is good and bad by turns stays what it is.
    """
    alike = health.last is not None and health.last.good == outcome.good
    streak = health.streak + 1 if alike else 1
    seen = replace(health, streak=streak, history=(*health.history, outcome)[-HISTORY_KEPT:])
    needed = check.rise if outcome.good else check.fall
    if outcome.good == health.passing or streak < needed:
        return seen
    turns = (*health.turns, outcome)[-HISTORY_KEPT:]
    return replace(seen, passing=outcome.good, since=outcome.at, turns=turns)


def is_trusted(outcome: Outcome, check: CheckConfig) -> bool:
    """Whether a look says something of its target.

    A bad one that took longer than it may says more of us: the answer may have waited for us to read it.
    """
    return outcome.good or outcome.seconds <= check.timeout_seconds + LATE_SECONDS


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node that should be in service as far as its boot and its operator go: ready, and not drained."""

    mac: Mac
    health: Health | None
    """None where the service has no check."""
    silent: bool = False
    """Its heartbeats have ceased, with nothing said before: it may be off, or we are cut off."""


@dataclass(frozen=True, slots=True)
class Members:
    """Who is in service."""

    joined: Mapping[Mac, float] = field(default_factory=dict)
    """When each joined; LONG_AGO for those found in the kernel's table at the start."""
    left: Mapping[Mac, float] = field(default_factory=dict)
    """When each left that failed a short while ago."""
    held: frozenset[Mac] = frozenset()
    """Nodes that are kept although they failed: all did, at once."""
    recovering: float | None = None
    """When the first of the nodes held was well again."""
    up: bool = False
    """Whether the service has its quorum; else its sorry server answers."""

    @classmethod
    def found(cls, macs: Iterable[Mac]) -> "Members":
        """Those that the kernel's table has when this process begins."""
        joined = dict.fromkeys(macs, LONG_AGO)
        return cls(joined, up=bool(joined))


def admit(members: Members, candidates: Iterable[Candidate], service: ServiceConfig, now: float) -> Members:
    """Who is in service now; who is no candidate is not.

    A node that passes joins, one that fails leaves, an undecided one stays as it is. When several fail at
    once and nobody is left, our own network or the check is broken, or nothing is lost by going on: they are
    held until one is well again, and the others then for as long as it takes them to recover.
    """
    known = {candidate.mac: candidate for candidate in candidates}
    well = {mac for mac, candidate in known.items() if _is_well(candidate, mac in members.joined)}
    window = together_seconds(service)
    failed = (members.joined.keys() & known.keys()) - well - members.held
    left = {mac: at for mac, at in members.left.items() if now - at <= window} | dict.fromkeys(failed, now)
    left = {mac: at for mac, at in left.items() if mac in known and mac not in well}
    held, recovering = members.held & known.keys(), members.recovering
    if not service.holds:
        held = frozenset()
    elif not well:
        held, recovering = held or frozenset(left if len(left) > 1 else ()), None
    elif held:
        recovering = now if recovering is None else recovering
        held = frozenset() if held <= well or now - recovering > window else held
    joined = {mac: members.joined.get(mac, now) for mac in known if mac in well or mac in held}
    up = has_quorum(members.up, len(joined), service)
    return Members(joined, left, held, recovering if held else None, up)


def _is_well(candidate: Candidate, is_member: bool) -> bool:
    if candidate.silent:
        return False
    if candidate.health is None:
        return True
    return is_member if candidate.health.passing is None else candidate.health.passing


def together_seconds(service: ServiceConfig) -> float:
    """How close to one another failures must be to count as one."""
    check = service.health_check
    return (
        TOGETHER_SECONDS if check is None else max(TOGETHER_SECONDS, check.interval_seconds * check.fall * 2)
    )


def has_quorum(had: bool, members: int, service: ServiceConfig) -> bool:
    """Whether so many members make the service up. Source: keepalived.conf(5), `quorum` and `hysteresis`."""
    return members >= service.quorum + (-service.hysteresis if had else service.hysteresis)


def weight(full: int, joined: float, slow_start_seconds: float, now: float) -> int:
    """The weight of a node that joined a moment ago: 1, and up to its own in RAMP_STEPS steps.

    Without it, least-connection schedulers send every new connection to the one that has none yet.
    """
    age = now - joined
    if age >= slow_start_seconds:
        return full
    step = math.floor(RAMP_STEPS * max(age, 0.0) / slow_start_seconds)
    return min(full, max(1, full * step // RAMP_STEPS))
