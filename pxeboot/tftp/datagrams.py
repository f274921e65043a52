"""Many datagrams for one system call: recvmmsg(2), sendmmsg(2) and UDP_SEGMENT, which Python's socket lacks.

A peer is an int here, the first 8 bytes of its sockaddr_in (family, port, address) as the kernel writes them:
the cheapest thing that Python can take from a buffer and find in a dict. Linux, 64 bits (mmsghdr's layout
comes from ctypes); packets that leave must stay where they are in memory until `flush` has returned True.
"""

import ctypes
import errno
import logging
import os
import socket
import struct
import sys
from collections.abc import Callable, Sequence

log = logging.getLogger(__name__)

BATCH = 64
"""Datagrams per system call."""
MAX_DATAGRAM = 2048
"""More than any request or ACK, bytes; what is longer is cut."""
MAX_SEGMENTS = 64
"""UDP_MAX_SEGMENTS before Linux 6.9 (include/linux/udp.h)."""
MAX_SEGMENTED = 65535 - 20 - 8
"""Largest send with UDP_SEGMENT, bytes: an IPv4 packet's payload."""

_UDP_SEGMENT = 103  # linux/udp.h, at SOL_UDP
_HEADER = 4  # bytes of an ACK; the rest of a datagram goes elsewhere, so that ACKs lie side by side
_NO_SEGMENTS = (errno.EINVAL, errno.EIO, errno.EMSGSIZE, errno.EOPNOTSUPP, errno.ENOPROTOOPT)
_ADDRESS = struct.Struct("=H")


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):
    """struct msghdr."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("iov", ctypes.c_void_p),
        ("iov_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    """struct mmsghdr."""

    _fields_ = (("header", _Header), ("length", ctypes.c_uint32))


class _Control(ctypes.Structure):
    """A cmsghdr with a uint16 behind it, padded."""

    _fields_ = (
        ("length", ctypes.c_size_t),
        ("level", ctypes.c_int),
        ("type", ctypes.c_int),
        ("value", ctypes.c_uint16),
        ("_padding", ctypes.c_uint16 * 3),
    )


_libc = ctypes.CDLL(None, use_errno=True)
_recvmmsg, _sendmmsg = _libc.recvmmsg, _libc.sendmmsg
_recvmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p)
_sendmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int)

_PEERS = tuple(struct.Struct("=" + "Q8x" * count) for count in range(BATCH + 1))
_WORDS = tuple(struct.Struct(f">{count}I") for count in range(BATCH + 1))
_PAIRS = tuple(struct.Struct(f"={2 * count}Q") for count in range(BATCH + 1))


def peer_of(address: tuple[str, int]) -> int:
    """An IPv4 address and a port as a peer."""
    host, port = address
    name = _ADDRESS.pack(socket.AF_INET) + port.to_bytes(2, "big") + socket.inet_aton(host)
    return int.from_bytes(name, sys.byteorder)


def address_of(peer: int) -> tuple[str, int]:
    """The IPv4 address and the port of a peer."""
    name = peer.to_bytes(8, sys.byteorder)
    return socket.inet_ntoa(name[4:]), int.from_bytes(name[2:4], "big")


class Packets:
    """Packets of one size (the last may be shorter), side by side in memory."""

    __slots__ = ("_bytes", "address", "length", "stride")

    def __init__(self, data: bytes, stride: int) -> None:
        self._bytes = data  # immutable, and alive as long as this is
        self.address = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0
        self.length = len(data)
        self.stride = stride


class Inbox:
    """Receives. One for each socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._descriptor = sock.fileno()
        self._names = bytearray(16 * BATCH)
        self._heads = bytearray(_HEADER * BATCH)
        self._rests = bytearray(MAX_DATAGRAM * BATCH)
        names, heads, rests = (_address(item) for item in (self._names, self._heads, self._rests))
        self._iovs = (_Iovec * (2 * BATCH))()
        self._messages = (_Message * BATCH)()
        for slot, message in enumerate(self._messages):
            self._iovs[2 * slot] = _Iovec(heads + _HEADER * slot, _HEADER)
            self._iovs[2 * slot + 1] = _Iovec(rests + MAX_DATAGRAM * slot, MAX_DATAGRAM)
            header = message.header
            header.name, header.name_length = names + 16 * slot, 16
            header.iov, header.iov_count = ctypes.addressof(self._iovs) + 32 * slot, 2
        self._start = ctypes.addressof(self._messages)
        self._blank = bytes(len(self._heads))

    def receive(self) -> Sequence[tuple[int, int]]:
        """Peer and first four bytes, big endian, of each datagram that waits; BATCH at most, maybe none.

        A shorter datagram is padded with zeros. Errors are those of single datagrams, or of an interface
        that is down: the next call tells.
        """
        self._heads[:] = self._blank
        count = _recvmmsg(self._descriptor, self._start, BATCH, 0, None)
        if count <= 0:
            return ()
        peers = _PEERS[count].unpack_from(self._names)
        words = _WORDS[count].unpack_from(self._heads)
        return tuple(zip(peers, words, strict=True))

    def datagram(self, index: int) -> bytes:
        """The whole of a datagram received last, MAX_DATAGRAM + 4 bytes at most."""
        length = self._messages[index].length
        head = self._heads[_HEADER * index : _HEADER * index + min(length, _HEADER)]
        rest = MAX_DATAGRAM * index
        return bytes(head + self._rests[rest : rest + max(length - _HEADER, 0)])


class Outbox:
    """Sends what was put into it, when told to. One for each socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.segments = True
        """Whether the kernel cuts packets apart; found out by trying."""
        self._descriptor = sock.fileno()
        self._plain = _Slots(segmented=False)
        self._windows = _Slots(segmented=True)

    def put(self, peer: int, packets: Packets, offset: int, length: int, window: bool = False) -> None:
        """Send `length` bytes of `packets` from byte `offset` on. Both are multiples of the stride, but for
        the last packet; at most MAX_SEGMENTS packets and MAX_SEGMENTED bytes.

        Parts of windows overtake other packets, so a peer that has windows gets all its blocks in them.
        """
        if window and self.segments:
            self._windows.add(peer, packets, packets.address + offset, length)
            return
        stride = packets.stride
        for start in range(offset, offset + length, stride):
            self._plain.add(peer, packets, packets.address + start, min(stride, offset + length - start))

    @property
    def full(self) -> bool:
        """Whether something is left from the last flush."""
        return bool(self._plain.parts or self._windows.parts)

    def flush(self) -> bool:
        """Send until nothing is left, or False when the socket takes no more now.

        What cannot be sent for another reason is lost, as the network may lose it: no route, a firewall.
        """
        return self._flush(self._windows, self._one_failed) and self._flush(self._plain, _log_lost)

    def _flush(self, slots: "_Slots", failed: Callable[["_Slots", int], None]) -> bool:
        while slots.parts:
            sent = _sendmmsg(self._descriptor, slots.start, slots.load(), 0)
            if sent > 0:
                slots.drop(sent)
                continue
            number = ctypes.get_errno()
            if number in (errno.EAGAIN, errno.ENOBUFS):
                return False
            if number != errno.EINTR:
                failed(slots, number)
        return True

    def _one_failed(self, slots: "_Slots", number: int) -> None:
        """The first of the windows was not sent. Where the kernel or the card cannot cut it, we do."""
        if number not in _NO_SEGMENTS:
            _log_lost(slots, number)
            return
        if self.segments:
            log.info("no UDP_SEGMENT here (%s): windows are sent in single packets", os.strerror(number))
        self.segments = False
        while slots.parts:
            peer, packets, address, length = slots.first()
            slots.drop(1)
            self.put(peer, packets, address - packets.address, length)


class _Slots:
    """Messages waiting for sendmmsg, and the structures that it reads."""

    def __init__(self, segmented: bool) -> None:
        self.parts: list[int] = []
        """Address and length of each."""
        self._peers: list[int] = []  # each followed by a sockaddr_in's 8 bytes of nothing
        self._packets: list[Packets] = []  # kept alive, and asked for their stride
        self._segmented = segmented
        self._names = bytearray(16 * BATCH)
        self._iovs = bytearray(16 * BATCH)
        self._controls = (_Control * BATCH)()
        self._messages = (_Message * BATCH)()
        names, iovs, controls = _address(self._names), _address(self._iovs), ctypes.addressof(self._controls)
        for slot, message in enumerate(self._messages):
            header = message.header
            header.name, header.name_length = names + 16 * slot, 16
            header.iov, header.iov_count = iovs + 16 * slot, 1
            if segmented:
                self._controls[slot] = _Control(18, socket.SOL_UDP, _UDP_SEGMENT)
                header.control = controls + ctypes.sizeof(_Control) * slot
                header.control_length = ctypes.sizeof(_Control)
        self.start = ctypes.addressof(self._messages)

    def add(self, peer: int, packets: Packets, address: int, length: int) -> None:
        self.parts += (address, length)
        self._peers += (peer, 0)
        self._packets.append(packets)

    def load(self) -> int:
        """Write the first messages where the kernel looks for them; how many."""
        count = min(len(self._packets), BATCH)
        _PAIRS[count].pack_into(self._iovs, 0, *self.parts[: 2 * count])
        _PAIRS[count].pack_into(self._names, 0, *self._peers[: 2 * count])
        if self._segmented:
            for slot in range(count):
                self._controls[slot].value = self._packets[slot].stride
        return count

    def first(self) -> tuple[int, Packets, int, int]:
        return self._peers[0], self._packets[0], self.parts[0], self.parts[1]

    def drop(self, count: int) -> None:
        del self.parts[: 2 * count], self._peers[: 2 * count], self._packets[:count]


def _log_lost(slots: _Slots, number: int) -> None:
    log.debug("%s: not sent: %s", address_of(slots.first()[0])[0], os.strerror(number))
    slots.drop(1)


def _address(buffer: bytearray) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))
