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
from collections.abc import Callable, Iterable

from pxeboot.segments import NO_SEGMENTS, UDP_SEGMENT

log = logging.getLogger(__name__)

BATCH = 32
"""Datagrams per system call."""
MAX_DATAGRAM = 2048
"""More than any request or ACK, bytes; what is longer is cut."""

_HEADER = 4  # bytes of an ACK; the rest of a datagram goes elsewhere, so that ACKs lie side by side
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
_recvmmsg, _sendmmsg = _libc.recvmmsg, _libc.sendmmsg  # without argtypes: checking them doubles a call's cost

_PEERS = tuple(struct.Struct("=" + "Q8x" * count) for count in range(BATCH + 1))
_WORDS = tuple(struct.Struct(f">{count}I") for count in range(BATCH + 1))
_SLOTS = tuple(struct.Struct(f"={4 * count}Q") for count in range(BATCH + 1))


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

    def __init__(self, data: bytearray | memoryview, stride: int) -> None:
        """`data` must not change its length."""
        self._bytes = data  # alive as long as this is
        self.address = _address(data)
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
        self._start = ctypes.c_void_p(ctypes.addressof(self._messages))
        self._blank = bytes(len(self._heads))

    def receive(self) -> Iterable[tuple[int, int]]:
        """Peer and first four bytes, big endian, of each datagram that waits; BATCH at most, false for none.

        A shorter datagram is padded with zeros. Errors are those of single datagrams, or of an interface
        that is down: the next call tells.
        """
        self._heads[:] = self._blank
        count = _recvmmsg(self._descriptor, self._start, BATCH, 0, None)
        if count <= 0:
            return ()
        peers = _PEERS[count].unpack_from(self._names)
        words = _WORDS[count].unpack_from(self._heads)
        return zip(peers, words, strict=True)

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
        self.put_one = self._plain.add
        """Send one packet: peer, packets, offset and length as for `put`."""
        self.put_address = self._plain.add_address
        """The same with an address in place of the offset."""

    def put(self, peer: int, packets: Packets, offset: int, length: int) -> None:
        """Send a window: `length` bytes of `packets` from byte `offset` on. Both are multiples of the stride,
        but for the last packet; at most MAX_SEGMENTS packets and MAX_SEGMENTED bytes.

        Windows overtake single packets, so a peer that has windows gets all its blocks by this.
        """
        if self.segments:
            self._windows.add(peer, packets, offset, length)
            return
        stride = packets.stride
        while length > 0:
            self._plain.add(peer, packets, offset, length if length < stride else stride)
            offset += stride
            length -= stride

    @property
    def full(self) -> bool:
        """Whether something is left from the last flush."""
        return bool(self._plain.waiting or self._windows.waiting)

    def flush(self) -> bool:
        """Send until nothing is left, or False when the socket takes no more now.

        What cannot be sent for another reason is lost, as the network may lose it: no route, a firewall.
        """
        return (not self._windows.waiting or self._flush(self._windows, self._one_failed)) and (
            not self._plain.waiting or self._flush(self._plain, _log_lost)
        )

    def _flush(self, slots: "_Slots", failed: Callable[["_Slots", int], None]) -> bool:
        while slots.waiting:
            sent = _sendmmsg(self._descriptor, slots.start, slots.load(), 0)
            if sent == len(slots.waiting):
                slots.clear()
                return True
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
        if number not in NO_SEGMENTS:
            _log_lost(slots, number)
            return
        if self.segments:
            log.info("no UDP_SEGMENT here (%s): windows are sent in single packets", os.strerror(number))
        self.segments = False
        while slots.waiting:
            peer, packets, address, length = slots.first()
            slots.drop(1)
            self.put(peer, packets, address - packets.address, length)


class _Slots:
    """Messages waiting for sendmmsg, and the structures that it reads."""

    def __init__(self, segmented: bool) -> None:
        self.waiting: list[Packets] = []
        """What each is of; kept alive, and asked for the stride."""
        self._parts: list[
            int
        ] = []  # of each: address, length, and a sockaddr_in: peer and 8 bytes of nothing
        self._segmented = segmented
        self._slots = bytearray(32 * BATCH)  # of each: an iovec and a sockaddr_in
        self._controls = (_Control * BATCH)()
        self._messages = (_Message * BATCH)()
        slots, controls = _address(self._slots), ctypes.addressof(self._controls)
        for slot, message in enumerate(self._messages):
            header = message.header
            header.name, header.name_length = slots + 32 * slot + 16, 16
            header.iov, header.iov_count = slots + 32 * slot, 1
            if segmented:
                self._controls[slot] = _Control(18, socket.SOL_UDP, UDP_SEGMENT)
                header.control = controls + ctypes.sizeof(_Control) * slot
                header.control_length = ctypes.sizeof(_Control)
        self.start = ctypes.c_void_p(ctypes.addressof(self._messages))

    def add(self, peer: int, packets: Packets, offset: int, length: int) -> None:
        self.add_address(peer, packets, packets.address + offset, length)

    def add_address(self, peer: int, packets: Packets, address: int, length: int) -> None:
        self._parts += (address, length, peer, 0)
        self.waiting.append(packets)

    def load(self) -> int:
        """Write the first messages where the kernel looks for them; how many."""
        count = len(self.waiting)
        if count <= BATCH:
            _SLOTS[count].pack_into(self._slots, 0, *self._parts)
        else:
            count = BATCH
            _SLOTS[count].pack_into(self._slots, 0, *self._parts[: 4 * count])
        if self._segmented:
            for slot in range(count):
                self._controls[slot].value = self.waiting[slot].stride
        return count

    def first(self) -> tuple[int, Packets, int, int]:
        address, length, peer, _ = self._parts[:4]
        return peer, self.waiting[0], address, length

    def clear(self) -> None:
        self._parts.clear()
        self.waiting.clear()

    def drop(self, count: int) -> None:
        del self._parts[: 4 * count], self.waiting[:count]


def _log_lost(slots: _Slots, number: int) -> None:
    log.debug("%s: not sent: %s", address_of(slots.first()[0])[0], os.strerror(number))
    slots.drop(1)


def _address(buffer: bytearray | memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))
