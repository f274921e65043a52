"""What one client may take: connections, time, reports."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web

from pxeboot.inventory.node import Node
from pxeboot.mac import Mac
from pxeboot.web import limits
from pxeboot.web.limits import EVENTS_AT_ONCE, EVENTS_PER_SECOND, MAX_RATED, Connections, EventRate, listen
from tests.web.house import MAC, OTHER, House

Open = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]
GET = b"GET /loader/snponly.efi HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture
async def connect(house: House, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Open]:
    """Opens connections to a port with limits: 8 for an address, and short times."""
    monkeypatch.setattr(limits, "IDLE_SECONDS", 1.0)
    monkeypatch.setattr(limits, "BODY_SECONDS", 0.3)
    monkeypatch.setattr(limits, "LINGER_SECONDS", 0.1)
    monkeypatch.setattr("pxeboot.web.node_api.BODY_SECONDS", 0.3)
    runner = house.http.server.runner
    assert isinstance(runner, web.AppRunner)
    assert runner.server is not None
    listening = await listen(runner.server, "127.0.0.1", 0, Connections(lambda: 8))
    writers = []

    async def connection() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname())
        writers.append(writer)
        return reader, writer

    yield connection
    for writer in writers:
        writer.close()
    listening.close()


async def ended(reader: asyncio.StreamReader, seconds: float = 2.0) -> bytes:
    """What comes until the server closes, which it must do in time."""
    try:
        return await asyncio.wait_for(reader.read(), seconds)
    except ConnectionError:
        return b""


async def test_one_address_has_so_many_connections_and_no_more(connect: Open) -> None:
    opened = [await connect() for _ in range(8)]
    refused, _ = await connect()
    assert await ended(refused, 0.3) == b""
    reader, writer = opened[0]
    writer.write(GET + b"\r\n")
    assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
    opened[1][1].close()
    await asyncio.sleep(0.1)
    reader, writer = await connect()  # in the place of the closed one
    writer.write(GET + b"\r\n")
    assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")


async def test_a_connection_that_asks_nothing_ends(connect: Open) -> None:
    reader, _ = await connect()
    assert await ended(reader) == b""


async def test_headers_that_trickle_end(connect: Open) -> None:
    reader, writer = await connect()
    writer.write(GET)
    for number in range(8):
        await asyncio.sleep(0.2)
        writer.write(b"X-%d: y\r\n" % number)
    assert await ended(reader, 0.3) == b""


async def test_an_answered_connection_may_ask_again_within_the_time(connect: Open) -> None:
    reader, writer = await connect()
    for _ in range(3):
        await asyncio.sleep(0.5)
        writer.write(b"HEAD" + GET[3:] + b"\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    assert await ended(reader) == b""


async def test_a_body_that_trickles_ends(connect: Open, house: House) -> None:
    path = (await house.boot_path()).encode()
    reader, writer = await connect()
    writer.write(b"POST %s/event HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n" % path)
    for _ in range(2):
        writer.write(b"x")
        await asyncio.sleep(0.1)
    assert (await ended(reader)).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize("line", [b"X: " + b"a" * 9000, b"\r\n".join(b"X%d: a" % it for it in range(300))])
async def test_headers_too_long_or_too_many_are_refused(connect: Open, line: bytes) -> None:
    reader, writer = await connect()
    writer.write(GET + line + b"\r\n\r\n")
    assert (await ended(reader)).startswith(b"HTTP/1.0 400")


async def test_too_many_reports_are_refused(house: House) -> None:
    await house.store.save_node(Node(OTHER, "web2"))
    path, other = await house.boot_path(), await house.boot_path(OTHER)
    answers = [await house.report(path, stage="network") for _ in range(30)]
    assert answers[:20] == [200] * 20
    assert 429 in answers
    assert await house.report(other, stage="network") == 200


def test_reports_are_allowed_again_at_the_rate() -> None:
    rate = EventRate()
    assert sum(rate.allows(MAC, 0.0) for _ in range(100)) == EVENTS_AT_ONCE
    assert sum(rate.allows(MAC, 2.0) for _ in range(100)) == 2 * EVENTS_PER_SECOND
    assert sum(rate.allows(MAC, 1000.0) for _ in range(100)) == EVENTS_AT_ONCE


def test_only_so_many_machines_are_rated() -> None:
    rate = EventRate()
    for number in range(MAX_RATED + 10):
        rate.allows(Mac.from_bytes(number.to_bytes(6, "big")), 0.0)
    assert len(rate._left) == MAX_RATED
