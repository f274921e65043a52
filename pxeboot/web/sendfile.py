"""A file into a socket: the kernel copies, and no byte passes through Python, except over TLS."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import BinaryIO, ClassVar

STALL_SECONDS = 30.0
"""A client that takes nothing for so long is cut off; it may resume."""
CHUNK_BYTES, LEAST_BYTES = 1 << 21, 1 << 19
"""At most so much by one call, for one file alone and for each of many, though the socket had room for more:
others wait meanwhile. Files that go out side by side in small steps find each other's pages in the cache."""
PIECE_BYTES = 1 << 18
"""Read and encrypted at a time."""


async def send_file(transport: asyncio.Transport, file: BinaryIO, span: range) -> None:
    """Send bytes of a file after all that was written to the transport before.

    Raises ConnectionError where the client goes away or takes nothing for STALL_SECONDS.
    """
    if transport.is_closing():
        raise ConnectionResetError("the client went away")
    try:
        if transport.get_write_buffer_size():  # the loop's own sendfile waits until that has left
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(STALL_SECONDS):
                span = span[await loop.sendfile(transport, file, span.start, 1) :]
        if span:
            await _Sending(transport, file, span).finish()
    except TimeoutError:
        transport.abort()
        raise ConnectionResetError(f"the client took nothing for {STALL_SECONDS:.0f} s") from None


async def write_file(
    transport: asyncio.Transport, write: Callable[[bytes], Awaitable[None]], file: BinaryIO, span: range
) -> None:
    """Write bytes of a file piece by piece. `write` returns when there is room for more.

    Raises ConnectionError where the client goes away or takes nothing for STALL_SECONDS.
    """
    for at in range(span.start, span.stop, PIECE_BYTES):
        size = min(PIECE_BYTES, span.stop - at)
        data = os.pread(file.fileno(), size, at)
        if len(data) < size:
            raise ConnectionAbortedError("the file has become shorter")
        try:
            async with asyncio.timeout(STALL_SECONDS):
                await write(data)
        except TimeoutError:
            transport.abort()
            raise ConnectionResetError(f"the client took nothing for {STALL_SECONDS:.0f} s") from None


class _Sending:
    """One span on its way, by a copy of the socket, since the loop keeps the original to itself.

    The loop's own sendfile would begin and end a registration for each piece, and need a timer for each.
    """

    under_way: ClassVar[int] = 0

    def __init__(self, transport: asyncio.Transport, file: BinaryIO, span: range) -> None:
        self._loop = asyncio.get_running_loop()
        self._file = file.fileno()
        self._at, self._end = span.start, span.stop
        self._moved = self._loop.time()
        self._done: asyncio.Future[None] = self._loop.create_future()
        self._timer = self._loop.call_later(STALL_SECONDS, self._look)
        self._socket = os.dup(transport.get_extra_info("socket").fileno())

    async def finish(self) -> None:
        """Raises ConnectionError, or TimeoutError where nothing moves for STALL_SECONDS."""
        _Sending.under_way += 1
        try:
            self._loop.add_writer(self._socket, self._push)
            self._push()
            await self._done
        except asyncio.CancelledError:
            if self._at < self._end:
                raise
            # The client had everything and hung up before we came to it: that is no broken download.
        finally:
            _Sending.under_way -= 1
            self._timer.cancel()
            self._loop.remove_writer(self._socket)
            os.close(self._socket)

    def _push(self) -> None:
        size = min(self._end - self._at, max(CHUNK_BYTES // _Sending.under_way, LEAST_BYTES))
        try:
            sent = os.sendfile(self._socket, self._file, self._at, size)
        except BlockingIOError:
            return
        except OSError as error:
            self._stop(ConnectionResetError(str(error)))
            return
        self._at += sent
        self._moved = self._loop.time()
        if self._at == self._end:
            self._stop(None)
        elif sent == 0:
            self._stop(ConnectionAbortedError("the file has become shorter"))

    def _look(self) -> None:
        """One timer however long the file: it is set anew only when it was due."""
        due = self._moved + STALL_SECONDS
        if self._loop.time() >= due:
            self._stop(TimeoutError())
        else:
            self._timer = self._loop.call_at(due, self._look)

    def _stop(self, error: OSError | None) -> None:
        self._loop.remove_writer(self._socket)
        if self._done.done():
            return
        if error is None:
            self._done.set_result(None)
        else:
            self._done.set_exception(error)
