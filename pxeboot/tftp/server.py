"""TFTP reads of one address: requests on port 69, admitted, looked up, delivered and put on record."""

import asyncio
import logging
import socket
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace

from pxeboot.errors import MalformedPacket, PxebootError
from pxeboot.tasks import Tasks
from pxeboot.tftp.content import Content, Memory, whole
from pxeboot.tftp.datagrams import MAX_DATAGRAM, address_of, peer_of
from pxeboot.tftp.delivery import Deliveries, Delivery
from pxeboot.tftp.packet import Error, ErrorCode, ReadRequest, WriteRequest, decode, encode
from pxeboot.tftp.sockets import bound_socket, path_mtu
from pxeboot.tftp.transfer import (
    TftpLimits,
    Transfer,
    check_netascii,
    masked,
    negotiate,
    plain_name,
    refusal,
    to_netascii,
)

log = logging.getLogger(__name__)

RESOLVE_SECONDS = 10.0
"""How long the content of a name may take to be found; firmware gives up after about twenty."""
QUEUE_SECONDS = 20.0
"""A client that waits for its turn asks again within that time, or has gone."""

_BATCH = 64  # requests read before the loop gets its turn
_OVERHEAD = 20 + 8 + 4  # bytes of IPv4, UDP and TFTP in front of a block
_SMALLEST_BLOCK = 512  # every path takes it: RFC 791 asks hosts for 576 bytes

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class TransferRecord:
    """One transfer, once it has ended."""

    peer: str
    """The client's IPv4 address."""
    name: str
    asked: Mapping[str, str]
    """The options in the request."""
    granted: Mapping[str, int]
    """Those in the OACK."""
    bytes: int
    """How much of the content the client acknowledged."""
    retransmissions: int
    """Packets sent more than once."""
    duration_s: float
    result: str
    """`done`, `size probe`, or the failure in a few words."""


@dataclass(slots=True)
class _Pending:
    """A request that waits for its turn, or whose content is looked for."""

    request: ReadRequest
    peer: Address
    asked_at: float
    """When it came last, seconds of the loop's clock."""
    name: str = field(init=False)
    task: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        self.name = plain_name(self.request.name)


class TftpServer:
    """Answers read requests that arrive at one IPv4 address, and at one interface when it is named.

    `content` is asked for a name (slashes only, none in front) and the client's address. It returns the
    content, None for "File not found", or raises PxebootError, whose message goes to the client.
    `finished` is called with the record of every transfer that was begun.

    Transfers leave from a second port, one for all of them; with `single_port` from the port for requests, as
    some firewalls and address translators want it.
    """

    def __init__(
        self,
        address: str,
        content: Callable[[str, str], Awaitable[Content | None]],
        limits: TftpLimits,
        finished: Callable[[TransferRecord], None],
        port: int = 69,
        interface: str | None = None,
        single_port: bool = False,
    ) -> None:
        self.port = port
        """Where requests arrive; the kernel's choice, once started, where 0 was given."""
        self._address = address
        self._content = content
        self._limits = limits
        self._finished = finished
        self._interface = interface
        self._single_port = single_port
        self._sought: dict[Address, _Pending] = {}
        self._waiting: OrderedDict[Address, _Pending] = OrderedDict()
        self._dropped = 0
        self.results: Counter[str] = Counter()
        """Reads that have ended: `done`, `size probe`, `failed`; and `refused` requests."""
        self.acknowledged_bytes = 0
        self.retransmissions = 0
        self._tasks = Tasks()
        self._sockets: list[socket.socket] = []
        self._deliveries: Deliveries | None = None

    @property
    def dropped(self) -> int:
        """Datagrams that were no TFTP, or no request where one was due."""
        return self._dropped + (self._deliveries.dropped if self._deliveries is not None else 0)

    @property
    def under_way(self) -> int:
        """Reads that are being sent, or whose content is looked for."""
        return len(self._sought) + (len(self._deliveries) if self._deliveries is not None else 0)

    @property
    def queued(self) -> int:
        """Reads that wait for their turn."""
        return len(self._waiting)

    async def start(self) -> None:
        """Bind and serve. Raises PxebootError when the address, port or interface cannot be had."""
        requests = bound_socket(self._address, self.port, self._interface)
        self._sockets.append(requests)
        self.port = requests.getsockname()[1]
        if self._single_port:
            self._deliveries = Deliveries(requests, self._ended, self._take)
            return
        transfers = bound_socket(self._address, 0, self._interface)
        self._sockets.append(transfers)
        self._deliveries = Deliveries(transfers, self._ended, None)
        asyncio.get_running_loop().add_reader(requests, self._readable, requests)

    async def close(self) -> None:
        """Stop listening and end all transfers; each still gets its record."""
        self._waiting.clear()
        await self._tasks.close()
        if self._deliveries is not None:
            await self._deliveries.close()
            self._deliveries = None
        for sock in self._sockets:
            asyncio.get_running_loop().remove_reader(sock)
            sock.close()
        self._sockets.clear()

    def _readable(self, sock: socket.socket) -> None:
        for _ in range(_BATCH):
            try:
                data, peer = sock.recvfrom(MAX_DATAGRAM)
            except OSError:  # nothing more to read, or the interface is down: the loop calls again
                return
            self._take(data, peer)

    def _take(self, data: bytes, peer: Address) -> None:
        """One datagram at the well-known port. No request, no answer: the sender's address may be forged."""
        try:
            request = decode(data)
            if not isinstance(request, ReadRequest | WriteRequest):
                raise MalformedPacket(f"{type(request).__name__} at the port for requests")  # noqa: TRY301
        except MalformedPacket as error:
            self._dropped += 1
            log.debug("%s: dropped a packet: %s", peer[0], error)
            return
        error_packet = refusal(request)
        if error_packet is not None:
            self._refuse(peer, request.name, error_packet)
        elif isinstance(request, ReadRequest):
            self._admit(_Pending(request, peer, asyncio.get_running_loop().time()))

    def _admit(self, pending: _Pending) -> None:
        """Begin a read, unless it has begun already; or have it wait for its turn."""
        if self._is_repeat(pending):
            log.debug("%s: %s asked for again", pending.peer[0], masked(pending.name))
            return
        self._drop_earlier(pending.peer)
        most = self._limits.max_transfers
        if self.under_way < most:
            self._seek(pending)
        elif len(self._waiting) < most:
            name = masked(pending.name)
            log.info("%s: %s waits for one of %d transfers to end", pending.peer[0], name, most)
            self._waiting[pending.peer] = pending
        else:
            message = f"Server is busy: {most} transfers, and as many waiting"
            self._refuse(pending.peer, pending.name, Error(ErrorCode.NOT_DEFINED, message), logging.WARNING)

    def _is_repeat(self, pending: _Pending) -> bool:
        """Whether it is a request being served, once more: a client's retry, or the network's copy."""
        earlier = self._sought.get(pending.peer) or self._waiting.get(pending.peer)
        if earlier is not None and earlier.request == pending.request:
            earlier.asked_at = pending.asked_at
            return True
        delivery = self._deliveries.find(peer_of(pending.peer)) if self._deliveries is not None else None
        return (
            delivery is not None
            and delivery.request == pending.request
            and delivery.transfer.takes_repeat(pending.asked_at)
        )

    def _drop_earlier(self, peer: Address) -> None:
        """The same client has begun anew, from the same port."""
        self._waiting.pop(peer, None)
        earlier = self._sought.pop(peer, None)
        if earlier is not None and earlier.task is not None:
            earlier.task.cancel()
        if self._deliveries is not None:
            delivery = self._deliveries.find(peer_of(peer))
            if delivery is not None:
                self._deliveries.stop(delivery, "replaced by a new request from the same port")

    def _seek(self, pending: _Pending) -> None:
        self._sought[pending.peer] = pending
        pending.task = self._tasks.spawn(self._serve(pending), f"TFTP to {pending.peer[0]}:{pending.peer[1]}")

    async def _serve(self, pending: _Pending) -> None:
        """Find the content and begin to send it; where there is none, let the next one have its turn."""
        try:
            content = await self._resolve(pending)
        finally:
            if self._sought.get(pending.peer) is pending:  # not the one that replaced it
                del self._sought[pending.peer]
        if content is not None and self._deliveries is not None:
            granted = negotiate(pending.request.options, self._limits_to(pending), content.size)
            transfer = Transfer(content.size, granted)
            delivery = Delivery(pending.request, pending.name, peer_of(pending.peer), content, transfer)
            self._deliveries.begin(delivery)
        self._call_next()

    def _limits_to(self, pending: _Pending) -> TftpLimits:
        """The limits, and no block that would be cut apart on its way: many boot ROMs cannot join it."""
        if "blksize" not in pending.request.options:
            return self._limits
        try:
            fits = path_mtu(self._address, pending.peer) - _OVERHEAD
        except OSError:  # no route to it at the moment
            return self._limits
        return replace(
            self._limits, max_block_size=min(self._limits.max_block_size, max(fits, _SMALLEST_BLOCK))
        )

    async def _resolve(self, pending: _Pending) -> Content | None:
        """The content to send, or None after telling the client why not."""
        peer, name = pending.peer, pending.name
        try:
            content = await asyncio.wait_for(self._content(name, peer[0]), RESOLVE_SECONDS)
            if content is not None and pending.request.mode == "netascii":
                return await _as_text(content)
            if content is not None:
                return content
            error = Error(ErrorCode.FILE_NOT_FOUND, "File not found")
        except PxebootError as refused:
            error = Error(ErrorCode.NOT_DEFINED, str(refused))
        except TimeoutError:
            error = Error(ErrorCode.NOT_DEFINED, f"Server did not find the file in {RESOLVE_SECONDS:g} s")
        except OSError as failed:
            error = Error(ErrorCode.NOT_DEFINED, f"Server cannot read it: {failed.strerror}")
        except Exception:
            self._refuse(peer, name, Error(ErrorCode.NOT_DEFINED, "Server failed; see its log"))
            raise
        self._refuse(peer, name, error)
        return None

    def _call_next(self) -> None:
        """Begin the reads that have waited longest, as far as there is room; those still wanted."""
        now = asyncio.get_running_loop().time()
        while self._waiting and self.under_way < self._limits.max_transfers:
            _, pending = self._waiting.popitem(last=False)
            if now - pending.asked_at < QUEUE_SECONDS:
                self._seek(pending)

    def _refuse(self, peer: Address, name: str, error: Error, level: int = logging.INFO) -> None:
        self.results["refused"] += 1
        log.log(level, "%s: %s refused: %s", peer[0], masked(plain_name(name)), error.message)
        if self._sockets:
            try:
                self._sockets[0].sendto(encode(error), peer)
            except OSError as failed:  # lost, as the network may lose it: the client asks again
                log.debug("%s: not sent: %s", peer[0], failed)

    def _ended(self, delivery: Delivery) -> None:
        transfer = delivery.transfer
        record = TransferRecord(
            peer=address_of(delivery.peer)[0],
            name=delivery.name,
            asked=delivery.request.options,
            granted=transfer.granted.options,
            bytes=transfer.acknowledged,
            retransmissions=transfer.retransmissions,
            duration_s=asyncio.get_running_loop().time() - delivery.begun,
            result=transfer.result or "",
        )
        self.results[record.result if transfer.done else "failed"] += 1
        self.acknowledged_bytes += record.bytes
        self.retransmissions += record.retransmissions
        _log_record(record)
        self._finished(record)
        self._call_next()


async def _as_text(content: Content) -> Memory:
    """The content with the line ends of netascii. Raises PxebootError when it is too large to be a text."""
    try:
        check_netascii(content.size)
        return Memory(to_netascii(await asyncio.to_thread(whole, content)))
    finally:
        content.close()


def _log_record(record: TransferRecord) -> None:
    log.log(
        logging.DEBUG if record.result == "size probe" else logging.INFO,
        "%s: %s: %s, %d bytes, %d retransmissions, %.2f s, options %s",
        record.peer,
        masked(record.name),
        record.result,
        record.bytes,
        record.retransmissions,
        record.duration_s,
        dict(record.granted),
    )
