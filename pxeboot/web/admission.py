"""Who may load the root image now, and who waits: slots and a queue, pure, with `now` in monotonic seconds.

Over a full link n downloads at once all end late; k at a time, the last ends just as late, and half of them
in half of the time. So there are as many slots as downloads the link feeds well. A node has its place from
its first refusal on, and keeps it while it asks again in time; a slot whose connection broke is kept for its
node.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from pxeboot.mac import Mac

HELD_SECONDS = 10.0
"""How long a slot waits for its node after the connection broke: longer than the initrd's longest pause."""
PATIENCE_SECONDS = 20.0
"""How long after the time it was told a node that waits may ask again and still have its place."""
EARLY_SECONDS, LATE_SECONDS = 1.0, 2.0
"""A node that is to ask so soon, or was to so short a time ago, is at the door: nobody behind it may pass."""
SHORTEST_PAUSE, LONGEST_PAUSE = 1.0, 10.0
"""Seconds; a thousand nodes that ask every 10 s are 100 small requests a second."""
DOOR_PLACES = 32
"""So many at least may wait for their answer: enough that no slot is empty while others pause."""
_WEIGHT = 0.2  # of the newest download in the average


@dataclass(frozen=True, slots=True)
class Turn:
    """What a node that asks is told: its place in the queue, from 1; 0: go ahead."""

    place: int = 0
    retry_seconds: int = 0
    """When to ask again; whole, as in Retry-After. 0 where `soon`."""
    soon: bool = False
    """It is to be kept waiting for the answer, as long as it has patience: a slot will be free for it before
    others', and while it paused that slot would be empty."""


@dataclass(slots=True)
class _Slot:
    """A download under way, or broken off a moment ago."""

    since: float
    connections: int = 0
    held_until: float = math.inf


class Admission:
    """The slots of one link."""

    def __init__(self, slots: int | None, spread: Callable[[], float]) -> None:
        """`slots`: None for no limit. `spread` gives numbers from 0 to 1: nodes must not ask in step."""
        self.slots = slots
        self._spread = spread
        self._loading: dict[Mac, _Slot] = {}
        self._waiting: dict[Mac, float] = {}  # in order of their first refusal; when they are to ask again
        self._seconds: float | None = None  # what a download takes, on average

    @property
    def loading(self) -> int:
        """Slots in use."""
        return len(self._loading)

    @property
    def waiting(self) -> int:
        """Nodes in the queue."""
        return len(self._waiting)

    def ask(self, mac: Mac, now: float, expected_seconds: float) -> Turn:
        """A node wants to load. With place 0 it has a slot, until `end` is called for it.

        `expected_seconds` is what a download is thought to take as long as none has ended.
        """
        self._forget(now)
        slot = self._loading.get(mac)
        if slot is None and self._room(mac, now):
            self._waiting.pop(mac, None)
            slot = self._loading[mac] = _Slot(now)
        if slot is not None:
            slot.connections += 1
            slot.held_until = math.inf
            return Turn()
        return self._refuse(mac, now, expected_seconds)

    def end(self, mac: Mac, now: float, *, whole: bool) -> None:
        """A connection that had a turn has ended; `whole`: after all that was asked for."""
        slot = self._loading[mac]
        slot.connections -= 1
        if slot.connections:
            return
        if whole:
            taken = now - slot.since
            self._seconds = (
                taken if self._seconds is None else self._seconds + _WEIGHT * (taken - self._seconds)
            )
            del self._loading[mac]
        else:
            slot.held_until = now + HELD_SECONDS

    def place(self, mac: Mac) -> int:
        """Where a node stands in the queue, from 1; 0: it does not wait."""
        return list(self._waiting).index(mac) + 1 if mac in self._waiting else 0

    def _room(self, mac: Mac, now: float) -> bool:
        """Whether a slot is free, and nobody who came earlier is at the door for it."""
        if self.slots is None:
            return True
        ahead = 0
        for other, due in self._waiting.items():
            if other == mac:
                break
            ahead += now - LATE_SECONDS <= due <= now + EARLY_SECONDS
        return len(self._loading) + ahead < self.slots

    def _refuse(self, mac: Mac, now: float, expected_seconds: float) -> Turn:
        assert self.slots is not None
        self._waiting.setdefault(mac, now)
        place = self.place(mac)
        door = max(self.slots, DOOR_PLACES)
        soon = place <= door
        seconds = expected_seconds if self._seconds is None else self._seconds
        # Too early rather than too late, so that no slot is empty meanwhile.
        guess = seconds * (place - door) / self.slots * (0.7 + 0.3 * self._spread())
        pause = 0 if soon else math.ceil(min(max(guess, SHORTEST_PAUSE), LONGEST_PAUSE))
        self._waiting[mac] = now + pause
        return Turn(place, pause, soon)

    def _forget(self, now: float) -> None:
        """Give free what nobody came back for."""
        for mac in [mac for mac, slot in self._loading.items() if now >= slot.held_until]:
            del self._loading[mac]
        for mac in [mac for mac, due in self._waiting.items() if now >= due + PATIENCE_SECONDS]:
            del self._waiting[mac]
