"""The sockets of TFTP: requests on port 69, and one socket with a port of its own for each transfer."""

import asyncio
import errno
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from pxeboot.errors import MalformedPacket, PxebootError
from pxeboot.tasks import Tasks
from pxeboot.tftp.packet import Error, ErrorCode, ReadRequest, WriteRequest, decode, encode
from pxeboot.tftp.transfer import TftpLimits, Transfer, negotiate, plain_name, refusal, translate

log = logging.getLogger(__name__)

RESOLVE_SECONDS = 10.0
"""How long the content of a name may take to be found; firmware gives up after about twenty."""

_BATCH = 64  # requests read before the loop gets its turn
_DATAGRAM = 2048  # more than any request or ACK; what is longer is cut, and refused as too long
_RECEIVE_BUFFER = 1 << 20  # bytes: a rack switched on at once asks at once
_IP_MTU_DISCOVER, _IP_PMTUDISC_DONT = 10, 0  # linux/in.h; not in Python's socket module

Peer = tuple[str, int]
Content = Callable[[str, str], Awaitable[bytes | memoryview | None]]


@dataclass(frozen=True, slots=True)
class TransferRecord:
    """One transfer, once it has ended."""

    peer: str
    """The client's IPv4 address."""
    name: str
    granted: Mapping[str, int]
    """The options the client was granted."""
    bytes: int
    """How much of the content the client acknowledged."""
    retransmissions: int
    """Packets sent more than once."""
    duration_s: float
    result: str
    """`done`, `size probe`, or the failure in a few words."""


class TftpServer:
    """Answers read requests that arrive at one IPv4 address, and at one interface when it is named.

    `content` is asked for a name (slashes only, none in front) and the client's address. It returns the
    content, None for "File not found", or raises PxebootError, whose message goes to the client.
    `finished` is called with the record of every transfer that was begun.
    """

    def __init__(
        self,
        address: str,
        content: Content,
        limits: TftpLimits,
        finished: Callable[[TransferRecord], None],
        port: int = 69,
        interface: str | None = None,
    ) -> None:
        self.port = port
        """Where requests arrive; the kernel's choice, once started, where 0 was given."""
        self.dropped = 0
        """Datagrams at that port which were no request."""
        self._address = address
        self._content = content
        self._limits = limits
        self._finished = finished
        self._interface = interface
        self._reads: dict[Peer, _Read] = {}
        self._tasks = Tasks()
        self._socket: socket.socket | None = None

    async def start(self) -> None:
        """Bind and serve. Raises PxebootError when the address, port or interface cannot be had."""
        try:
            sock = _bound_socket(self._address, self.port, self._interface)
        except OSError as error:
            raise _bind_error(error, self._address, self.port, self._interface) from error
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        self._socket, self.port = sock, sock.getsockname()[1]
        asyncio.get_running_loop().add_reader(sock, self._readable, sock)

    async def close(self) -> None:
        """Stop listening and end all transfers; each still gets its record."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None
        await self._tasks.close()

    def _readable(self, sock: socket.socket) -> None:
        for _ in range(_BATCH):
            try:
                data, peer = sock.recvfrom(_DATAGRAM)
            except OSError:  # nothing more to read, or the interface is down: the loop calls again
                return
            self._take(data, peer)

    def _take(self, data: bytes, peer: Peer) -> None:
        """One datagram at the well-known port. No request, no answer: the sender's address may be forged."""
        try:
            request = decode(data)
            if not isinstance(request, ReadRequest | WriteRequest):
                raise MalformedPacket(f"{type(request).__name__} at the port for requests")  # noqa: TRY301
        except MalformedPacket as error:
            self.dropped += 1
            log.debug("%s: dropped a packet: %s", peer[0], error)
            return
        error_packet = refusal(request)
        if error_packet is not None:
            self._refuse(peer, request.name, error_packet)
        elif isinstance(request, ReadRequest):
            self._admit(request, peer)

    def _admit(self, request: ReadRequest, peer: Peer) -> None:
        """Begin a read, unless it has begun already or there is no room."""
        earlier = self._reads.get(peer)
        if earlier is not None:
            if earlier.takes_repeat(request):
                log.debug("%s: %s asked for again while it is sent", peer[0], request.name)
                return
            earlier.stop("replaced by a new request from the same port")
        elif len(self._reads) >= self._limits.max_transfers:
            message = f"Server is busy: {len(self._reads)} transfers, the most allowed"
            self._refuse(peer, request.name, Error(ErrorCode.NOT_DEFINED, message), logging.WARNING)
            return
        read = _Read(request, peer)
        self._reads[peer] = read
        read.task = self._tasks.spawn(self._serve(read), f"TFTP to {peer[0]}:{peer[1]}")
        read.task.add_done_callback(lambda _: self._forget(read))

    def _forget(self, read: "_Read") -> None:
        if self._reads.get(read.peer) is read:  # not the one that replaced it
            del self._reads[read.peer]

    async def _serve(self, read: "_Read") -> None:
        name = plain_name(read.request.name)
        content = await self._resolve(name, read)
        if content is None:
            return
        try:
            sock = _bound_socket(self._address, 0, self._interface)
        except OSError as error:  # out of file descriptors, or the address was taken away
            message = f"Server has no socket for it: {error.strerror}"
            self._refuse(read.peer, name, Error(ErrorCode.NOT_DEFINED, message), logging.WARNING)
            return
        with sock:
            await self._transfer(sock, read, name, content)

    async def _transfer(
        self, sock: socket.socket, read: "_Read", name: str, content: bytes | memoryview
    ) -> None:
        granted = negotiate(read.request.options, self._limits, len(content))
        read.transfer = transfer = Transfer(content, granted)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        try:
            await _Conversation(sock, read.peer, transfer).run()
        finally:
            transfer.abandon("the server stopped it")  # when cancelled; it does nothing, once all is over
            self._record(
                TransferRecord(
                    peer=read.peer[0],
                    name=name,
                    granted=granted.options,
                    bytes=transfer.bytes,
                    retransmissions=transfer.retransmissions,
                    duration_s=loop.time() - begun,
                    result=transfer.result or "",
                )
            )

    async def _resolve(self, name: str, read: "_Read") -> bytes | memoryview | None:
        """The bytes to send, or None after telling the client why not."""
        try:
            content = await asyncio.wait_for(self._content(name, read.peer[0]), RESOLVE_SECONDS)
            if content is not None:
                return translate(content, read.request.mode)
            error = Error(ErrorCode.FILE_NOT_FOUND, "File not found")
        except PxebootError as refused:
            error = Error(ErrorCode.NOT_DEFINED, str(refused))
        except TimeoutError:
            error = Error(ErrorCode.NOT_DEFINED, f"Server did not find the file in {RESOLVE_SECONDS:g} s")
        except Exception:
            self._refuse(read.peer, name, Error(ErrorCode.NOT_DEFINED, "Server failed; see its log"))
            raise
        self._refuse(read.peer, name, error)
        return None

    def _refuse(self, peer: Peer, name: str, error: Error, level: int = logging.INFO) -> None:
        log.log(level, "%s: %s refused: %s", peer[0], name, error.message)
        if self._socket is not None:
            _send(self._socket, encode(error), peer)

    def _record(self, record: TransferRecord) -> None:
        level = logging.DEBUG if record.result == "size probe" else logging.INFO
        log.log(
            level,
            "%s: %s: %s, %d bytes, %d retransmissions, %.2f s, options %s",
            record.peer,
            record.name,
            record.result,
            record.bytes,
            record.retransmissions,
            record.duration_s,
            dict(record.granted),
        )
        self._finished(record)


class _Read:
    """A request being served, from its arrival to the end of its transfer."""

    def __init__(self, request: ReadRequest, peer: Peer) -> None:
        self.request = request
        self.peer = peer
        self.transfer: Transfer | None = None  # while its content is looked for
        self.task: asyncio.Task[None] | None = None

    def takes_repeat(self, request: ReadRequest) -> bool:
        """Whether `request` is this one once more: a client's retry, or a copy made by the network."""
        if request != self.request:
            return False
        return self.transfer is None or self.transfer.takes_repeat(asyncio.get_running_loop().time())

    def stop(self, reason: str) -> None:
        if self.transfer is not None:
            self.transfer.abandon(reason)
        if self.task is not None:
            self.task.cancel()


class _Conversation:
    """The socket and the timer of one transfer; what is sent is the transfer's choice."""

    def __init__(self, sock: socket.socket, peer: Peer, transfer: Transfer) -> None:
        self._socket = sock
        self._peer = peer
        self._transfer = transfer
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._ended = asyncio.Event()

    async def run(self) -> None:
        """Return when the transfer has ended."""
        self._loop.add_reader(self._socket, self._readable)
        try:
            self._send(self._transfer.start(self._loop.time()))
            await self._ended.wait()
        finally:
            self._loop.remove_reader(self._socket)
            if self._timer is not None:
                self._timer.cancel()

    def _readable(self) -> None:
        try:
            data, peer = self._socket.recvfrom(_DATAGRAM)
        except OSError:  # a checksum was wrong, or the interface is down
            return
        try:
            if peer == self._peer:
                self._send(self._transfer.receive(data, self._loop.time()))
            elif not isinstance(decode(data), Error):  # an ERROR is never answered
                log.debug("%s: sent to the port of a transfer to %s", peer[0], self._peer[0])
                unknown = Error(ErrorCode.UNKNOWN_TRANSFER_ID, "Unknown transfer ID")  # RFC 1350 §4
                _send(self._socket, encode(unknown), peer)
        except MalformedPacket as error:
            log.debug("%s: dropped a packet: %s", peer[0], error)

    def _due(self) -> None:
        self._timer = None
        self._send(self._transfer.tick(self._loop.time()))

    def _send(self, packets: list[bytes]) -> None:
        for packet in packets:
            _send(self._socket, packet, self._peer)
        if self._transfer.result is not None:
            self._ended.set()
        else:
            self._set_timer()

    def _set_timer(self) -> None:
        """Have `_due` called no later than the deadline. An earlier call does nothing but set the timer anew,
        which spares cancelling one for each ACK."""
        deadline = self._transfer.deadline
        if self._timer is not None:
            if self._timer.when() <= deadline:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(deadline, self._due)


def _send(sock: socket.socket, packet: bytes, peer: Peer) -> None:
    """Send, or lose it as the network may: the next retransmission heals a full queue or a missing route."""
    try:
        sock.sendto(packet, peer)
    except OSError as error:
        log.debug("%s: not sent: %s", peer[0], error)


def _bound_socket(address: str, port: int, interface: str | None) -> socket.socket:
    """A UDP socket that sends from `address`. DF is clear: boot ROMs do not know path MTU discovery, and
    a router that must fragment may. Raises OSError.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_DONT)
        if interface is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        sock.bind((address, port))
    except BaseException:
        sock.close()
        raise
    return sock


def _bind_error(error: OSError, address: str, port: int, interface: str | None) -> PxebootError:
    where = f"TFTP at {address} port {port}"
    match error.errno:
        case errno.EADDRINUSE:
            return PxebootError(f"{where}: in use", f"Stop its user; `ss -lunp sport = :{port}` shows it.")
        case errno.EADDRNOTAVAIL:
            return PxebootError(f"{where}: not an address of this machine", "Give it to the interface.")
        case errno.EACCES | errno.EPERM:
            return PxebootError(f"{where}: not allowed", "Run as root.")
        case errno.ENODEV:
            return PxebootError(f"{where}: no interface {interface!r}", "`ip link` lists the interfaces.")
    return PxebootError(f"{where}: {error.strerror}", "Check the address and the interface.")
