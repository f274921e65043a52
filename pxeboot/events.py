"""The in-process bus: who is interested is woken, and looks in the store what is true now."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

BACKLOG = 1000
"""Events kept for a subscriber that is slow; the oldest are dropped first."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened: `kind` like "boot" or "node", and what about, as JSON values."""

    kind: str
    about: dict[str, Any]


class Subscription:
    """One subscriber's events, oldest first."""

    def __init__(self) -> None:
        self._waiting: deque[Event] = deque(maxlen=BACKLOG)
        self._news = asyncio.Event()

    def put(self, event: Event) -> None:
        """Never blocks: a full backlog loses its oldest event."""
        self._waiting.append(event)
        self._news.set()

    async def next(self, seconds: float) -> Event | None:
        """The next event; None where none came within `seconds`."""
        if not self._waiting:
            self._news.clear()
            try:
                async with asyncio.timeout(seconds):
                    await self._news.wait()
            except TimeoutError:
                return None
        return self._waiting.popleft()


class Bus:
    """Publish and subscribe. An event may be lost; what it tells is in the store."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()

    def publish(self, kind: str, **about: Any) -> None:
        """Wake every subscriber."""
        event = Event(kind, about)
        for subscription in self._subscriptions:
            subscription.put(event)

    @asynccontextmanager
    async def subscribe(self) -> AsyncIterator[Subscription]:
        """Events from now until the block ends."""
        subscription = Subscription()
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)
