"""A Unix socket here for an API that listens on TCP in a namespace: sockets on disk do not cross kernels."""

import asyncio
import contextlib
import os
import socket
from pathlib import Path

from pxeboot.lab import network
from pxeboot.tasks import Tasks

CHUNK = 65536
CONNECT_SECONDS = 5.0


class Relay:
    """Whoever connects to `path` speaks with `address`, as seen from inside the namespace."""

    def __init__(self, path: Path, namespace: str, address: tuple[str, int]) -> None:
        self._path = path
        self._namespace = namespace
        self._address = address
        self._tasks = Tasks()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen, for the owner only."""
        before = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(self._accept, self._path)
        finally:
            os.umask(before)

    async def close(self) -> None:
        """Hang up on everybody."""
        if self._server is not None:
            self._server.close()
        await self._tasks.close()
        self._path.unlink(missing_ok=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.spawn(self._carry(reader, writer), "relay")

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(CONNECT_SECONDS):
                far_reader, far_writer = await self._connect()
            with contextlib.closing(far_writer):
                there = self._tasks.spawn(_pour(reader, far_writer), "relay there")
                await _pour(far_reader, writer)
                there.cancel()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        line = network.in_namespace(self._namespace, lambda: socket.socket(socket.AF_INET))
        try:
            line.setblocking(False)
            await asyncio.get_running_loop().sock_connect(line, self._address)
            return await asyncio.open_connection(sock=line)
        except BaseException:
            line.close()
            raise


async def _pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry bytes one way until its end, and pass that on."""
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
