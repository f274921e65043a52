"""Bursts: what is kept, what is dropped and counted, and who has to wait. Real sockets on loopback."""

import asyncio
import logging
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from pxeboot.dhcp import inbox
from pxeboot.dhcp.inbox import QUEUE, Inbox, grow_buffer
from pxeboot.tasks import Tasks


@dataclass
class Letters:
    """An inbox, who writes to it, and the numbers that came out of it."""

    udp: socket.socket
    sender: socket.socket
    tasks: Tasks = field(default_factory=Tasks)
    got: list[int] = field(default_factory=list)
    ports: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.inbox = Inbox(self.udp, "test", self.take, lambda: 0)

    def take(self, batch: list[tuple[bytes, int]]) -> None:
        assert 0 < len(batch) <= inbox.BATCH
        for data, port in batch:
            self.got.append(int.from_bytes(data, "big"))
            self.ports.add(port)

    def write(self, numbers: range) -> None:
        for number in numbers:
            self.sender.send(number.to_bytes(4, "big"))

    async def settle(self) -> None:
        """Until nothing comes out any more."""
        before = -1
        while before != len(self.got):
            before = len(self.got)
            await asyncio.sleep(0.05)


@pytest.fixture
def letters() -> Iterator[Letters]:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        udp.setblocking(False)
        udp.bind(("127.0.0.1", 0))
        sender.connect(udp.getsockname())
        yield Letters(udp, sender)


async def test_datagrams_come_in_order_and_with_their_port(letters: Letters) -> None:
    letters.inbox.open()
    letters.write(range(1000))
    await letters.settle()
    letters.inbox.close()
    assert letters.got == list(range(1000))
    assert letters.ports == {letters.sender.getsockname()[1]}
    assert (letters.inbox.dropped, letters.inbox.dropped_by_kernel) == (0, 0)


async def test_a_burst_larger_than_the_queue_loses_its_oldest(
    letters: Letters, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(inbox, "QUEUE", 64)
    monkeypatch.setattr(inbox, "BATCH", 16)
    letters.inbox.open()
    letters.write(range(100))
    await letters.settle()
    letters.inbox.close()
    assert letters.inbox.dropped == 100 - len(letters.got) > 0
    assert letters.got == sorted(letters.got)
    assert letters.got[-64:] == list(range(36, 100))
    assert [record.message for record in caplog.records if record.levelno == logging.WARNING] == [
        f"test: more requests than can be answered: {letters.inbox.dropped} dropped oldest first, "
        "0 by the kernel, in all"
    ]


async def test_what_the_kernel_drops_is_counted(letters: Letters) -> None:
    letters.inbox.open()
    letters.udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    letters.write(range(500))
    await letters.settle()
    letters.write(range(500, 501))  # the count comes with what is received after the loss
    await letters.settle()
    letters.inbox.close()
    assert letters.got[-1] == 500
    assert letters.inbox.dropped_by_kernel > 400
    assert len(letters.got) + letters.inbox.dropped_by_kernel == 501


async def test_others_have_their_turn_during_a_burst(letters: Letters) -> None:
    letters.inbox.open()
    letters.write(range(QUEUE))
    turns: list[int] = []

    async def other() -> None:
        while len(letters.got) < QUEUE:
            turns.append(len(letters.got))
            await asyncio.sleep(0)

    async with asyncio.timeout(10):
        await other()
    letters.inbox.close()
    steps = [after - before for before, after in pairwise(turns)]
    assert max(steps) <= inbox.BATCH


async def test_the_queue_waits_while_too_many_requests_wait_for_the_disk(
    letters: Letters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "MAX_UNDER_WAY", 3)
    monkeypatch.setattr(inbox, "BATCH", 1)
    disk: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def request(number: int) -> None:
        await disk
        letters.got.append(number)

    def take(batch: list[tuple[bytes, int]]) -> None:
        for data, _ in batch:
            letters.tasks.start(request(int.from_bytes(data, "big")), "request")

    letters.inbox = Inbox(letters.udp, "test", take, lambda: len(letters.tasks))
    letters.inbox.open()
    letters.write(range(10))
    await asyncio.sleep(0.1)
    assert len(letters.tasks) == 3
    disk.set_result(None)
    await letters.settle()
    letters.inbox.close()
    assert letters.got == list(range(10))


def test_the_buffer_is_as_large_as_the_kernel_lets_it_be(letters: Letters) -> None:
    grow_buffer(letters.udp, 16 << 20)
    size = letters.udp.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    assert size >= 200_000  # net.core.rmem_default's order; twice what was asked for where we are root


async def test_a_flood_from_outside_is_bounded_and_ends(letters: Letters) -> None:
    letters.inbox.open()
    flood = threading.Thread(target=letters.write, args=(range(50_000),))
    flood.start()
    while flood.is_alive():
        assert len(letters.inbox._waiting) <= QUEUE
        await asyncio.sleep(0)
    await letters.settle()
    letters.write(range(50_000, 50_001))
    await letters.settle()
    letters.inbox.close()
    lost = letters.inbox.dropped + letters.inbox.dropped_by_kernel
    assert (letters.got[-1], len(letters.got) + lost) == (50_000, 50_001)
    assert letters.got == sorted(letters.got)


async def test_while_datagrams_come_one_look_takes_many_and_the_first_after_a_silence_is_taken_at_once(
    letters: Letters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "GATHER_SECONDS", 0.05)
    batches: list[int] = []
    letters.inbox = Inbox(letters.udp, "test", lambda batch: batches.append(len(batch)), lambda: 0)
    letters.inbox.open()
    for _ in range(2):
        letters.write(range(1))
        await asyncio.sleep(0.01)
        assert batches == [1]
        letters.write(range(7))
        await asyncio.sleep(0.15)  # two looks more, the last of which finds nothing
        assert batches == [1, 7]
        batches.clear()
    letters.inbox.close()
