import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from pyroute2 import IPRoute, netns

from pxeboot.lab import network
from pxeboot.lab.relay import Relay

from .conditions import needs_network

pytestmark = [pytest.mark.net, needs_network]

PORT = 8080


@pytest.fixture
def namespace() -> Iterator[str]:
    name = f"test-{os.getpid()}"
    netns.create(name)
    try:
        network.in_namespace(name, bring_up)
        yield name
    finally:
        network.delete(name)


def bring_up() -> None:
    with IPRoute() as links:
        links.link("set", index=1, state="up")


@pytest.fixture
async def relay(namespace: str, tmp_path: Path) -> AsyncIterator[Relay]:
    made = Relay(tmp_path / "api.sock", namespace, ("127.0.0.1", PORT))
    await made.start()
    yield made
    await made.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send everything back when the other side has said all."""
    writer.write(await reader.read())
    writer.close()
    await writer.wait_closed()


@pytest.mark.usefixtures("relay")
async def test_bytes_go_both_ways_and_their_end_too(namespace: str, tmp_path: Path) -> None:
    listener = network.in_namespace(namespace, lambda: socket_at(PORT))
    said = os.urandom(300_000)
    async with await asyncio.start_server(echo, sock=listener):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "api.sock")
        writer.write(said)
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(), 10) == said
        writer.close()
    assert (tmp_path / "api.sock").stat().st_mode & 0o777 == 0o600


def socket_at(port: int) -> socket.socket:
    return socket.create_server(("127.0.0.1", port))


@pytest.mark.usefixtures("relay")
async def test_where_nobody_listens_the_connection_ends(tmp_path: Path) -> None:
    reader, writer = await asyncio.open_unix_connection(tmp_path / "api.sock")
    assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()


async def test_closing_hangs_up_and_leaves_no_socket(relay: Relay, namespace: str, tmp_path: Path) -> None:
    listener = network.in_namespace(namespace, lambda: socket_at(PORT))
    async with await asyncio.start_server(echo, sock=listener):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "api.sock")
        writer.write(b"a")
        await asyncio.sleep(0.05)
        await relay.close()
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()
    assert not (tmp_path / "api.sock").exists()
