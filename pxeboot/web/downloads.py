"""Turns of root downloads: the decisions of `admission`, and the wait for a slot that is about to be free."""

import asyncio
import random

from pxeboot.mac import Mac
from pxeboot.site import Site
from pxeboot.web.admission import Admission, Turn

WAIT_SECONDS = 8.0
"""How long the next in the queue are kept waiting for an answer; the initrd gives a silent server 15 s."""
LOOK_SECONDS = 1.0
"""How often they look themselves: a slot whose node stayed away comes free without anybody telling."""


class Downloads:
    """Who loads and who waits, over all our networks."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._admission = Admission(site.config.http.slots, random.random)
        self._freed = asyncio.Event()

    async def turn(self, mac: Mac, size: int) -> Turn:
        """Ask for a slot, to load `size` bytes. With place 0 it is the node's, and `end` must follow."""
        expected = size * 8 / self._site.config.http.min_share
        loop = asyncio.get_running_loop()
        deadline = loop.time() + WAIT_SECONDS
        while True:
            self._admission.slots = self._site.config.http.slots
            turn = self._admission.ask(mac, loop.time(), expected)
            if not turn.soon or loop.time() >= deadline:
                return turn
            freed = self._freed
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await freed.wait()
            except TimeoutError:
                continue

    def end(self, mac: Mac, *, whole: bool) -> None:
        """A connection of a node that had its turn has ended, after all it asked for or before."""
        self._admission.end(mac, asyncio.get_running_loop().time(), whole=whole)
        freed, self._freed = self._freed, asyncio.Event()
        freed.set()

    def place(self, mac: Mac) -> int:
        """Where a node stands in the queue; 0: it does not wait."""
        return self._admission.place(mac)
