"""Storms of root downloads against the real queue, in a time that jumps from one event to the next."""

import asyncio
import random
import selectors
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest

from pxeboot.config import HttpConfig
from pxeboot.mac import Mac
from pxeboot.web.downloads import Downloads
from tests.parts import make_site

IMAGE_BYTES = 200 << 20


class Jumping(selectors.SelectSelector):
    """Waits for nothing: it moves the loop's clock instead."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "the storm stands still"
        self.now += max(0.0, timeout)
        return super().select(0)


class JumpingLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def run(storm: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(storm)


@dataclass
class Storm:
    """`nodes` machines over a link that feeds `slots` of them; some leave for ever at their turn."""

    slots: int
    nodes: int
    link: float
    leaving: float = 0.0
    dice: random.Random = field(default_factory=lambda: random.Random(5))
    done: list[float] = field(default_factory=list)
    empty: float = 0.0
    """Slots times seconds that nobody used though somebody waited."""
    asked: int = 0
    _loading: int = 0
    _waiting: int = 0
    _since: float = 0.0

    @property
    def ideal(self) -> float:
        """Seconds, were the link full all the time."""
        return self.nodes * IMAGE_BYTES * 8 / self.link

    async def rage(self, downloads: Downloads) -> None:
        self._since = began = asyncio.get_running_loop().time()
        self._waiting = self.nodes
        await asyncio.gather(*(self._node(downloads, number, began) for number in range(self.nodes)))

    async def _node(self, downloads: Downloads, number: int, began: float) -> None:
        mac = Mac.from_bytes((0x525400 << 24 | number).to_bytes(6, "big"))
        await asyncio.sleep(self.dice.random() / 5)
        while True:
            self.asked += 1
            turn = await downloads.turn(mac, IMAGE_BYTES)
            if not turn.place:
                break
            await asyncio.sleep(turn.retry_seconds + 0.002)
        self._count(1, -1)
        leaves = self.dice.random() < self.leaving
        seconds = IMAGE_BYTES * 8 / self.link * self.slots * self.dice.uniform(0.8, 1.2)
        await asyncio.sleep(seconds * (0.5 if leaves else 1))
        self._count(-1, 0)
        downloads.end(mac, whole=not leaves)
        if not leaves:
            self.done.append(asyncio.get_running_loop().time() - began)

    def _count(self, loading: int, waiting: int) -> None:
        now = asyncio.get_running_loop().time()
        used = min(self.slots, self._loading + self._waiting)
        self.empty += (used - self._loading) * (now - self._since)
        self._since, self._loading, self._waiting = now, self._loading + loading, self._waiting + waiting


def downloads_of(slots: int, link: float, tmp_path: Any) -> Downloads:
    site = make_site(tmp_path)
    http = HttpConfig(max_downloads=slots, min_share=int(link / slots))
    site.config = site.config.model_copy(update={"http": http})
    return Downloads(site)


@pytest.mark.parametrize(("slots", "nodes", "link"), [(1, 40, 2e8), (5, 200, 1e9), (50, 1000, 1e10)])
def test_half_of_the_nodes_are_done_in_little_more_than_half_of_the_time(
    slots: int, nodes: int, link: float, tmp_path: Any
) -> None:
    async def twice() -> None:
        downloads = downloads_of(slots, link, tmp_path)
        for _ in range(2):  # the second knows from the first how long downloads take
            storm = Storm(slots, nodes, link)
            await storm.rage(downloads)
            assert len(storm.done) == nodes
            assert storm.empty / slots < 0.2  # of some minutes: no slot waits for nodes that pause
            assert storm.done[nodes // 2 - 1] < 0.55 * storm.ideal
            assert storm.done[-1] < 1.05 * storm.ideal
            assert storm.asked < 2 * nodes + storm.ideal * nodes / 6  # a node asks every 6 s at most

    run(twice())


def test_slots_of_nodes_that_leave_go_to_the_next(tmp_path: Any) -> None:
    async def once() -> None:
        storm = Storm(5, 100, 1e9, leaving=0.1)
        await storm.rage(downloads_of(5, 1e9, tmp_path))
        left = 100 - len(storm.done)
        assert left > 3
        assert storm.empty < left * 11 + 1  # each slot is kept for its node for ten seconds, and no longer

    run(once())
