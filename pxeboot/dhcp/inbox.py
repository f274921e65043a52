"""What waits to be answered: a socket read as soon as it fills, and a queue that drops the oldest."""

import asyncio
import logging
import socket
import sys
import time
from collections import deque
from collections.abc import Callable

log = logging.getLogger(__name__)

RECEIVE_BUFFER_BYTES = 16 << 20
"""For a wake-up that comes late: some 8 000 small datagrams, as the kernel counts them."""
MAX_DATAGRAM = 65535
QUEUE = 8192
"""Datagrams that wait to be answered. A fifth of a second of work: who waits longer is about to ask again."""
BATCH = 128
"""Datagrams answered before the other services have their turn; some milliseconds."""
GATHER_SECONDS = 0.001
"""From one look at the socket to the next while datagrams come: a wake-up costs as much as three exchanges,
so let some gather. The first after a silence is answered at once."""
MAX_UNDER_WAY = 8192
"""Requests begun whose answers wait for the disk; beyond it the queue waits too."""
PAUSE_SECONDS = 0.005
"""Until the queue looks again whether requests under way have ended."""
COMPLAIN_SECONDS = 10.0
"""How often drops are told while they last."""
_SO_RCVBUFFORCE, _SO_RXQ_OVFL = 33, 40  # asm-generic/socket.h; Python's socket module has no names for them
_CONTROL_BYTES = socket.CMSG_SPACE(4)

Handler = Callable[[list[tuple[bytes, int]]], None]
"""Takes datagrams, each with the UDP port it came from."""


class Inbox:
    """Datagrams of one socket on their way to a handler.

    When they come faster than they are answered, the oldest is dropped: its client has asked again
    meanwhile, or soon will, and answering the newest first keeps the rest of the wait short. What the
    kernel dropped before we could read it is counted too (SO_RXQ_OVFL, socket(7)).
    """

    def __init__(
        self, udp: socket.socket, where: str, handler: Handler, under_way: Callable[[], int]
    ) -> None:
        """`where` names the socket in the log; while too many requests are under way, the queue waits."""
        self._udp = udp
        self._where = where
        self._handler = handler
        self._under_way = under_way
        self._waiting: deque[tuple[bytes, int]] = deque()
        self._working = False
        self._again: asyncio.TimerHandle | None = None
        self.dropped = 0
        """Datagrams dropped by us, oldest first, because too many were waiting."""
        self.dropped_by_kernel = 0
        """Datagrams that found the socket's buffer full."""
        self._told_at = 0.0  # monotonic seconds
        self._told = 0

    def open(self) -> None:
        """Begin to read."""
        grow_buffer(self._udp, RECEIVE_BUFFER_BYTES)
        self._udp.setsockopt(socket.SOL_SOCKET, _SO_RXQ_OVFL, 1)
        self._await()

    def close(self) -> None:
        """Read and answer no more; the socket stays the caller's."""
        asyncio.get_running_loop().remove_reader(self._udp.fileno())
        if self._again is not None:
            self._again.cancel()
        self._waiting.clear()

    def _await(self) -> None:
        asyncio.get_running_loop().add_reader(self._udp.fileno(), self._wake)

    def _wake(self) -> None:
        """The first datagram after a silence."""
        asyncio.get_running_loop().remove_reader(self._udp.fileno())
        self._look()

    def _look(self) -> None:
        """Read what has come, and again soon; where nothing has, wait to be woken."""
        self._again = None
        count = self._read()
        if count:
            pause = GATHER_SECONDS if count < QUEUE else 0.0
            self._again = asyncio.get_running_loop().call_later(pause, self._look)
        else:
            self._await()

    def _read(self) -> int:
        """Empty the kernel's buffer, so that what is dropped is dropped by age; how many there were.

        QUEUE at most: who sends as fast as we read must not keep us here.
        """
        receive, waiting = self._udp.recvmsg, self._waiting
        before = len(waiting)
        try:
            for _ in range(QUEUE):
                data, control, _, (_, port) = receive(MAX_DATAGRAM, _CONTROL_BYTES)
                waiting.append((data, port))
                if control:  # only once something was dropped
                    self.dropped_by_kernel = _drops(control)
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            log.warning("%s: cannot receive: %s", self._where, error)
        count = len(waiting) - before
        for _ in range(len(waiting) - QUEUE):
            waiting.popleft()
            self.dropped += 1
        if self.dropped + self.dropped_by_kernel > self._told:
            self._tell_drops()
        if count and not self._working:
            self._work()
        return count

    def _work(self) -> None:
        """Answer a batch; whoever else uses this event loop has a turn before the next."""
        loop, waiting = asyncio.get_running_loop(), self._waiting
        if self._under_way() >= MAX_UNDER_WAY:
            self._working = True
            loop.call_later(PAUSE_SECONDS, self._work)
            return
        if waiting:
            self._handler([waiting.popleft() for _ in range(min(BATCH, len(waiting)))])
        self._working = bool(waiting)
        if self._working:
            loop.call_soon(self._work)

    def _tell_drops(self) -> None:
        now = time.monotonic()
        if now >= self._told_at + COMPLAIN_SECONDS:
            self._told_at, self._told = now, self.dropped + self.dropped_by_kernel
            log.warning(
                "%s: more requests than can be answered: %d dropped oldest first, %d by the kernel, in all",
                self._where,
                self.dropped,
                self.dropped_by_kernel,
            )


def _drops(control: list[tuple[int, int, bytes]]) -> int:
    """The kernel's count of datagrams that this socket has lost since it was opened."""
    counts = [value for level, kind, value in control if (level, kind) == (socket.SOL_SOCKET, _SO_RXQ_OVFL)]
    return int.from_bytes(counts[0], sys.byteorder) if counts else 0


def grow_buffer(udp: socket.socket, size: int) -> None:
    """As large a receive buffer as we may have: past net.core.rmem_max where we are root (socket(7))."""
    try:
        udp.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, size)
    except PermissionError:
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
