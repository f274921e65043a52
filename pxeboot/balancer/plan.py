"""The smallest list of changes that makes the kernel's table what it should be. Pure.

Services that are neither wanted nor ours are not looked at. Of a service that is ours everything is: a weight
set by hand, a server added or deleted behind our back.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import Enum

from pxeboot.balancer.table import Entry, Real, ServiceKey, Table, Virtual


class Verb(Enum):
    """What is done to a service or a server."""

    ADD = "add"
    SET = "set"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Change:
    """One step: of a whole service where `real` is None, else of a server of it."""

    verb: Verb
    virtual: Virtual
    real: Real | None = None
    before: Real | None = None
    """What the server was, for the log."""

    def __str__(self) -> str:
        if self.real is None:
            return f"{self.verb.value} service {self.virtual.key} ({self.virtual.scheduler})"
        was = f", was {self.before.weight}" if self.before and self.before.weight != self.real.weight else ""
        weight = "" if self.verb is Verb.DELETE else f" weight {self.real.weight}{was}"
        return f"{self.verb.value} {self.real.address}:{self.real.port}{weight} in {self.virtual.key}"


def plan(wanted: Table, actual: Table, ours: Collection[ServiceKey] = ()) -> list[Change]:
    """Changes in the order to make them: a service before its servers, newcomers before those that leave.

    `wanted` has the reals that should be there (counts are not read); `ours` are the services that we made
    earlier, which may go. Applied, it leaves nothing to do.
    """
    changes: list[Change] = []
    for key, entry in wanted.items():
        changes += _make_true(entry, actual.get(key))
    for key in ours:
        if key in actual and key not in wanted:
            changes.append(Change(Verb.DELETE, actual[key].virtual))  # its servers go with it
    return changes


def _make_true(wanted: Entry, actual: Entry | None) -> Iterator[Change]:
    virtual = wanted.virtual
    if actual is None:
        yield Change(Verb.ADD, virtual)
    elif actual.virtual != virtual:
        yield Change(Verb.SET, virtual)
    present = actual.reals if actual is not None else {}
    others = []
    for name, real in wanted.reals.items():
        before = present.get(name)
        if before is None:
            yield Change(Verb.ADD, virtual, real)
        else:
            others.append((real, before))
    for real, before in others:
        if before != real:
            yield Change(Verb.SET, virtual, real, before)
    if len(others) < len(present):
        for name, real in present.items():
            if name not in wanted.reals:
                yield Change(Verb.DELETE, virtual, real)
