"""What the machines of a rack answer: HTTP and datagrams, one thread and one event loop for all of them.

A thread for each connection of each machine would keep the only processor of a User Mode Linux busy.
"""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

T = TypeVar("T")

SLOW_SECONDS = 1.0
"""What `/slow` takes."""
CALL_SECONDS = 10.0


class Answers:
    """The loop; `close` ends it and every connection."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="answers", daemon=True)
        self._thread.start()

    def http(self, listening: socket.socket, answer: Callable[[str], str]) -> asyncio.Server:
        """Serve on a listening socket of whatever namespace: `answer` makes a body of a path."""
        return self.do(self.loop.create_server(lambda: _Page(answer), sock=listening))

    def datagrams(self, open_socket: socket.socket, answer: str) -> asyncio.BaseTransport:
        """Answer every datagram on the socket."""
        transport, _ = self.do(self.loop.create_datagram_endpoint(lambda: _Echo(answer), sock=open_socket))
        return transport

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something in the loop, from another thread."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(CALL_SECONDS)

    def end(self, server: asyncio.Server | asyncio.BaseTransport) -> None:
        """Listen no more; connections go on."""
        self.loop.call_soon_threadsafe(server.close)

    def close(self) -> None:
        self.do(asyncio.sleep(0))  # what was ended is closed in the loop's next turn
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(CALL_SECONDS)
        self.loop.close()


class _Page(asyncio.Protocol):
    """One request of one connection, which is then closed."""

    def __init__(self, answer: Callable[[str], str]) -> None:
        self._answer = answer
        self._asked = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._asked += data
        if b"\r\n\r\n" not in self._asked:
            return
        path = self._asked.split(b" ", 2)[1].decode()
        delay = SLOW_SECONDS if path == "/slow" else 0.0
        asyncio.get_running_loop().call_later(delay, self._say, self._answer(path).encode())

    def _say(self, body: bytes) -> None:
        head = f"HTTP/1.0 200 OK\r\nContent-Length: {len(body)}\r\n\r\n"
        self._transport.write(head.encode() + body)
        self._transport.close()


class _Echo(asyncio.DatagramProtocol):
    def __init__(self, answer: str) -> None:
        self._answer = answer.encode()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, peer: tuple[str, int]) -> None:
        self._transport.sendto(self._answer, peer)


async def fetch(address: str, port: int, path: str) -> int:
    """One request on a connection of its own; the number that answered. Raises OSError or ValueError."""
    reader, writer = await asyncio.open_connection(address, port)
    try:
        writer.write(request(path))
        return number(await reader.read())
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def request(path: str) -> bytes:
    return f"GET {path} HTTP/1.0\r\nHost: www\r\n\r\n".encode()


def number(answer: bytes) -> int:
    """The body of a whole answer. Raises OSError, ValueError."""
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.0 200") or not body:
        raise ConnectionError(f"a strange answer: {answer[:80]!r}")
    return int(body)
