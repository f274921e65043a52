"""All transfers that leave by one socket, told apart by the clients' addresses and ports.

Many ACKs are read, and many blocks sent, with one system call each; what one ACK costs in Python is what
limits lock step, so that its path here is short.
"""

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable, Iterable

from pxeboot.errors import MalformedPacket
from pxeboot.tasks import Tasks
from pxeboot.tftp.content import Content, Piece, Pieces
from pxeboot.tftp.datagrams import Inbox, Outbox, Packets, address_of
from pxeboot.tftp.packet import Error, ErrorCode, Opcode, OptionAck, Packet, ReadRequest, decode, encode
from pxeboot.tftp.transfer import MIN_WAIT_S, NOTHING, Transfer, masked

log = logging.getLogger(__name__)

TICK_SECONDS = 0.005
"""How often deadlines are looked at: no work for each packet, little for each transfer."""
LINGER_SECONDS = 3.0
"""How long copies of a transfer's last ACK, late on their way, are known for what they are."""
WATCH_SECONDS = 0.0002
"""How long the socket is watched for the next ACK, where the last one took no longer either. To sleep and be
woken takes about as long, and a client in lock step waits for it with each block."""
TURN_SECONDS = 0.001
"""Then the loop gets its turn, whatever else may come."""
_MOST_LINGERING = 65536
_ACK = int(Opcode.ACK)
_REQUESTS = (int(Opcode.RRQ), int(Opcode.WRQ))


class Delivery:
    """One transfer and what it sends.

    Where nothing but lock step is to be expected, it says what each ACK will be answered with, so that this
    takes no more than a comparison; `settle` tells the transfer afterwards.
    """

    __slots__ = ("_counted", "awaits", "base", "begun", "block_size", "content", "due", "heard_at",
                 "loading", "name", "oack", "peer", "piece", "put", "request", "stride", "transfer",
                 "until", "wanted")  # fmt: skip

    def __init__(
        self, request: ReadRequest, name: str, peer: int, content: Content, transfer: Transfer
    ) -> None:
        self.request = request
        self.name = name
        self.peer = peer
        self.content = content
        self.transfer = transfer
        self.block_size = transfer.granted.block_size
        self.stride = self.block_size + 4
        self.oack = _alone(OptionAck({key: str(value) for key, value in transfer.granted.options.items()}))
        self.begun = 0.0
        self.heard_at = 0.0
        """When an ACK or a deadline last had something sent."""
        self.due = 0.0
        """When its deadline must be looked at again; ACKs that are only counted do not make that earlier."""
        self.piece: Piece | None = None
        """Where it is; all that it holds of the content."""
        self.put: Callable[[int, Piece, int, int], None]
        """How the outbox takes its blocks."""
        self.loading = False
        """A piece is being read from the disk,"""
        self.wanted = NOTHING
        """and these blocks wait for it."""
        self.awaits = 0
        """The next ACK in lock step, as the word it is on the wire,"""
        self.until = 0
        """the one at which that ends,"""
        self.base = 0
        """and, with `stride` bytes for each, where the packet that answers it is in memory."""
        self._counted = 0

    def expect(self, sent: int) -> None:
        """Block `sent` of `piece` has just been sent, alone."""
        piece = self.piece
        if piece is None:
            return
        self.awaits = self._counted = _ACK << 16 | sent & 0xFFFF
        answers = min(self.transfer.steps, piece.stop - 1 - sent, 0xFFFF - (sent & 0xFFFF))
        self.until = self.awaits + answers
        self.base = piece.address + (sent + 1 - piece.first) * self.stride - self.awaits * self.stride

    def settle(self) -> None:
        """Let the transfer know of the ACKs that were only counted, and count no more."""
        if self.awaits != self._counted:
            self.transfer.step(self.awaits - self._counted, self.heard_at)
        self.awaits = self._counted = self.until = 0


class Deliveries:
    """Sends until each transfer has ended, and then calls `ended` once."""

    def __init__(
        self,
        sock: socket.socket,
        ended: Callable[[Delivery], None],
        requested: Callable[[bytes, tuple[str, int]], None] | None,
    ) -> None:
        """`requested` takes requests that arrive at this socket, where it is not for transfers alone."""
        self.dropped = 0
        """Datagrams that were no TFTP."""
        self._socket = sock
        self._ended = ended
        self._requested = requested
        self._inbox, self._outbox = Inbox(sock), Outbox(sock)
        self._under_way: dict[int, Delivery] = {}
        self._lingering: dict[int, float] = {}  # peers of ended transfers, and when they ended
        self._leaving: deque[int] = deque()  # the same, oldest first
        self._pieces = Pieces()
        self._ahead: list[Delivery] = []  # which will need their next piece
        self._tasks = Tasks()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._heard_at = 0.0
        self._loop.add_reader(sock, self._readable)

    def __len__(self) -> int:
        return len(self._under_way)

    def find(self, peer: int) -> Delivery | None:
        """The transfer under way to that peer."""
        delivery = self._under_way.get(peer)
        if delivery is not None:
            delivery.settle()
        return delivery

    def begin(self, delivery: Delivery) -> None:
        """Send its first packets."""
        delivery.begun = now = self._loop.time()
        lock_step = delivery.transfer.granted.window_size == 1
        delivery.put = self._outbox.put_one if lock_step else self._outbox.put
        self._under_way[delivery.peer] = delivery
        self._put(delivery, delivery.transfer.start(now), now)
        self._flush()
        if self._timer is None:
            self._timer = self._loop.call_later(TICK_SECONDS, self._tick)

    def stop(self, delivery: Delivery, reason: str) -> None:
        """End a transfer as failed."""
        delivery.settle()
        delivery.transfer.abandon(reason)
        self._end(delivery)

    async def close(self) -> None:
        """End all transfers. The socket stays open."""
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        if self._timer is not None:
            self._timer.cancel()
        for delivery in list(self._under_way.values()):
            self.stop(delivery, "the server stopped it")
        await self._tasks.close()

    def _readable(self) -> None:
        begun = now = self._loop.time()
        watches = begun - self._heard_at < WATCH_SECONDS
        self._heard_at = begun
        while now - begun < TURN_SECONDS:
            received = self._inbox.receive()
            now = self._loop.time()
            if received:
                self._heard_at = now
                self._take_all(received, now)
                if not self._flush():
                    return
                if self._ahead:
                    self._look_ahead()
            elif not watches or now - self._heard_at > WATCH_SECONDS:
                return

    def _take_all(self, received: Iterable[tuple[int, int]], now: float) -> None:
        under_way, put = self._under_way, self._outbox.put_address
        for index, (peer, word) in enumerate(received):
            delivery = under_way.get(peer)
            if delivery is None or word >> 16 != _ACK:
                self._take_other(peer, word >> 16, self._inbox.datagram(index), now)
            elif word == delivery.awaits and word < delivery.until and delivery.piece is not None:
                delivery.awaits = word + 1
                delivery.heard_at = now
                put(peer, delivery.piece, delivery.base + word * delivery.stride, delivery.stride)
            else:
                delivery.settle()
                self._put(delivery, delivery.transfer.acknowledge(word & 0xFFFF, now), now)

    def _take_other(self, peer: int, opcode: int, data: bytes, now: float) -> None:
        """A datagram that is no ACK, or whose sender has no transfer."""
        delivery = self._under_way.get(peer)
        try:
            if self._requested is not None and opcode in _REQUESTS:
                self._requested(data, address_of(peer))
            elif delivery is not None:
                delivery.settle()
                self._put(delivery, delivery.transfer.receive(data, now), now)
            elif peer not in self._lingering and not isinstance(decode(data), Error):  # never answered
                log.debug("%s: sent to the port of transfers without having one", address_of(peer)[0])
                self._put_alone(peer, Error(ErrorCode.UNKNOWN_TRANSFER_ID, "Unknown transfer ID"))
        except MalformedPacket as error:
            self.dropped += 1
            log.debug("%s: dropped a packet: %s", address_of(peer)[0], error)

    def _put(self, delivery: Delivery, blocks: range, now: float) -> None:
        """Have these blocks sent with the next flush; none may mean that the transfer has ended."""
        delivery.due = 0.0
        first, stop = blocks.start, blocks.stop
        if first == stop:
            if delivery.transfer.result is not None:
                self._end(delivery)
            return
        delivery.heard_at = now
        if first == 0:
            self._outbox.put_one(delivery.peer, delivery.oack, 0, delivery.oack.length)
            return
        piece = delivery.piece
        while first < stop:
            if piece is None or not piece.first <= first < piece.stop:
                piece = self._find(delivery, blocks, first)
                if piece is None:
                    return
            end = min(stop, piece.stop)
            offset = (first - piece.first) * piece.stride
            length = (end - first) * piece.stride
            delivery.put(
                delivery.peer, piece, offset, min(length, piece.length - offset)
            )  # the last is short
            first = end
        delivery.expect(stop - 1)

    def _put_alone(self, peer: int, packet: Packet) -> None:
        alone = _alone(packet)
        self._outbox.put_one(peer, alone, 0, alone.length)

    def _find(self, delivery: Delivery, blocks: range, first: int) -> Piece | None:
        """The piece that `first` is in; or None, and the blocks from there on are sent when it is read."""
        piece = self._pieces.find(delivery.content, delivery.block_size, first)
        if piece is None:
            delivery.wanted = range(first, blocks.stop)
            self._begin_to_load(delivery, first)
        else:
            delivery.piece = piece
            if not piece.ends(delivery.content.size):
                self._ahead.append(delivery)
        return piece

    def _look_ahead(self) -> None:
        """Make the packets that come next while the clients are busy with these."""
        ahead, self._ahead = self._ahead, []
        for delivery in ahead:
            piece = delivery.piece
            if piece is None or delivery.transfer.result is not None:
                continue
            if self._pieces.find(delivery.content, delivery.block_size, piece.stop) is None:
                self._begin_to_load(delivery, piece.stop)

    def _begin_to_load(self, delivery: Delivery, block: int) -> None:
        if not delivery.loading:
            delivery.loading = True
            self._tasks.spawn(self._load(delivery, block), f"TFTP reads {masked(delivery.name)}")

    async def _load(self, delivery: Delivery, block: int) -> None:
        """Read in a thread: a disk that must turn first delays nobody else."""
        try:
            piece = await asyncio.to_thread(self._pieces.read, delivery.content, delivery.block_size, block)
            self._pieces.keep(delivery.content, delivery.block_size, piece)
        except OSError as error:
            self._cannot_read(delivery, error)
        finally:
            delivery.loading = False
            if delivery.transfer.result is not None:
                delivery.content.close()
        wanted, delivery.wanted = delivery.wanted, NOTHING
        if wanted and delivery.transfer.result is None:
            self._put(delivery, wanted, self._loop.time())
        self._flush()

    def _cannot_read(self, delivery: Delivery, error: OSError) -> None:
        reason = f"Server cannot read it: {error.strerror or error}"
        if delivery.transfer.result is None:
            self._put_alone(delivery.peer, Error(ErrorCode.NOT_DEFINED, reason))
            self.stop(delivery, reason)

    def _end(self, delivery: Delivery) -> None:
        if self._under_way.pop(delivery.peer, None) is None:
            return
        self._lingering[delivery.peer] = self._loop.time()
        self._leaving.append(delivery.peer)
        delivery.piece = None
        if not delivery.loading:
            delivery.content.close()
        self._ended(delivery)

    def _flush(self) -> bool:
        """Send. When the socket takes no more, no ACK is read until it does: nothing piles up here."""
        if self._outbox.flush():
            return True
        self._loop.remove_reader(self._socket)
        self._loop.add_writer(self._socket, self._writable)
        return False

    def _writable(self) -> None:
        if self._outbox.flush():
            self._loop.remove_writer(self._socket)
            self._loop.add_reader(self._socket, self._readable)

    def _tick(self) -> None:
        now = self._loop.time()
        if not self._outbox.full:
            heard = now - MIN_WAIT_S
            quiet = [item for item in self._under_way.values() if item.due <= now and item.heard_at <= heard]
            for delivery in quiet:
                delivery.settle()
                if delivery.transfer.deadline <= now:
                    self._put(delivery, delivery.transfer.tick(now), now)
                delivery.due = delivery.transfer.deadline
            self._flush()
        while self._leaving and self._forgets(self._leaving[0], now):
            self._lingering.pop(self._leaving.popleft(), None)
        busy = self._under_way or self._leaving
        self._timer = self._loop.call_later(TICK_SECONDS, self._tick) if busy else None

    def _forgets(self, peer: int, now: float) -> bool:
        ended = self._lingering.get(peer, 0.0)
        return now - ended > LINGER_SECONDS or len(self._leaving) > _MOST_LINGERING


def _alone(packet: Packet) -> Packets:
    data = encode(packet)
    return Packets(bytearray(data), len(data))
