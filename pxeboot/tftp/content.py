"""What is sent: content in memory or in a file, made into packets once for all transfers that send it."""

import contextlib
import mmap
import os
import struct
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from functools import cache
from typing import Protocol

from pxeboot.segments import MAX_SEGMENTED, MAX_SEGMENTS
from pxeboot.tftp.datagrams import Packets
from pxeboot.tftp.packet import Opcode

CACHE_BYTES = 16 << 20
"""Packets kept for the next who ask; a transfer itself holds one piece, 64 KiB. With more, a single client is
served more slowly: the kernel clears what is used for the first time, and no processor has it at hand.
"""
_ROOM_BYTES = 64 << 20  # of which only as much is used as is kept, or held by transfers
_READ_AHEAD = 1 << 20  # bytes
_SLOT_BYTES = 1 << 16  # a piece is no larger, see MAX_SEGMENTED


class Content(Protocol):
    """Bytes that do not change while they are sent."""

    @property
    def size(self) -> int:
        """Bytes."""

    @property
    def key(self) -> Hashable:
        """Equal where the bytes are."""

    def read_now(self, parts: Sequence[memoryview], offset: int) -> bool:
        """Fill the parts with what stands from byte `offset` on; False where that would take a while."""

    def read(self, parts: Sequence[memoryview], offset: int) -> None:
        """The same, however long it takes. Raises OSError."""

    def close(self) -> None:
        """Nothing will be read any more."""


class Memory:
    """Content that is at hand."""

    def __init__(self, data: bytes) -> None:
        self.key = self._data = data
        """The bytes themselves: their hash is reckoned once, and equal content is one."""
        self.size = len(data)

    def read_now(self, parts: Sequence[memoryview], offset: int) -> bool:
        """Always."""
        self.read(parts, offset)
        return True

    def read(self, parts: Sequence[memoryview], offset: int) -> None:
        """Copy it."""
        for part in parts:
            part[:] = self._data[offset : offset + len(part)]
            offset += len(part)

    def close(self) -> None:
        """Nothing to do."""


class File:
    """Content of an open file, whose descriptor it takes over."""

    def __init__(self, descriptor: int) -> None:
        """Raises OSError."""
        self._descriptor = descriptor
        status = os.fstat(descriptor)
        self.size = status.st_size
        self.key = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)

    def read_now(self, parts: Sequence[memoryview], offset: int) -> bool:
        """From the page cache."""
        length = sum(map(len, parts))
        with contextlib.suppress(OSError):  # a file system without RWF_NOWAIT, as well as a page not there
            return os.preadv(self._descriptor, parts, offset, os.RWF_NOWAIT) == length
        return False

    def read(self, parts: Sequence[memoryview], offset: int) -> None:
        """From the disk if need be, which fetches what comes next into the page cache meanwhile."""
        length = sum(map(len, parts))
        os.posix_fadvise(self._descriptor, offset + length, _READ_AHEAD, os.POSIX_FADV_WILLNEED)
        if os.preadv(self._descriptor, parts, offset) != length:
            raise OSError("the file was cut short while it was sent")

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._descriptor)


def whole(content: Content) -> bytes:
    """All of it, however long that takes. Raises OSError."""
    data = bytearray(content.size)
    content.read([memoryview(data)], 0)
    return bytes(data)


class Room:
    """Memory for pieces, used over and over, in huge pages where there are such: to be given small pages when
    they are first touched takes longer than to read the file into them.
    """

    def __init__(self, size: int) -> None:
        """`size` in bytes, a multiple of 64 KiB. Nothing of it is taken before it is used."""
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with contextlib.suppress(OSError):
            memory.madvise(mmap.MADV_HUGEPAGE)
        self._view = memoryview(memory)
        self._free = list(range(0, size, _SLOT_BYTES))[::-1]

    def take(self) -> int | None:
        """Where a slot begins, or None where all are in use."""
        try:
            return self._free.pop()
        except IndexError:
            return None

    def slot(self, start: int, length: int) -> memoryview:
        """The first `length` bytes of a slot."""
        return self._view[start : start + length]

    def give_back(self, start: int) -> None:
        """The slot is in use no more."""
        self._free.append(start)


class Piece(Packets):
    """The DATA packets of some blocks in a row: as many as one send with UDP_SEGMENT takes."""

    __slots__ = ("_room", "_slot", "first", "payloads", "stop")

    def __init__(self, room: Room, first: int, count: int, length: int, block_size: int) -> None:
        """`length` is that of the payload of `count` blocks, the last of which may lack some or all."""
        stride, whole_length = block_size + 4, length + 4 * count
        self._room = room
        self._slot = room.take()
        data = bytearray(whole_length) if self._slot is None else room.slot(self._slot, whole_length)
        super().__init__(data, stride)
        self.first = first
        """Its first block."""
        self.stop = first + count
        """The block after its last."""
        view = memoryview(data)
        # Block numbers wrap to 0, as clients expect.
        numbers = _numbers(count).pack(*[block & 0xFFFF for block in range(first, self.stop)])
        headers = (bytes(count), bytes([Opcode.DATA]) * count, numbers[::2], numbers[1::2])
        for place, column in enumerate(headers):  # the first byte of each, the second of each, …
            view[place::stride] = column
        self.payloads = [view[start : start + block_size] for start in range(4, whole_length + 1, stride)]
        """To be filled, and let go, before it is sent."""

    def __del__(self) -> None:
        if self._slot is not None:
            self._room.give_back(self._slot)

    def ends(self, size: int) -> bool:
        """Whether the last block of content of that many bytes is in it."""
        return (self.stop - 1) * (self.stride - 4) > size


@cache
def _numbers(count: int) -> struct.Struct:
    return struct.Struct(f">{count}H")


class Pieces:
    """Finds the piece that a block is in. Those used last are kept, for every transfer of equal content."""

    def __init__(self, cache_bytes: int = CACHE_BYTES) -> None:
        self.kept_bytes = 0
        self._most = cache_bytes
        self._room = Room(_ROOM_BYTES)
        self._kept: OrderedDict[Hashable, Piece] = OrderedDict()

    def find(self, content: Content, block_size: int, block: int) -> Piece | None:
        """The piece with `block`, or None where `read` must be waited for."""
        first = _first_of_piece(block, block_size)
        piece = self._kept.get((content.key, block_size, first))
        if piece is not None:
            self._kept.move_to_end((content.key, block_size, first))
            return piece
        count, offset, length = _extent(content.size, block_size, first)
        piece = Piece(self._room, first, count, length, block_size)
        if not content.read_now(piece.payloads, offset):
            return None
        self.keep(content, block_size, piece)
        return piece

    def read(self, content: Content, block_size: int, block: int) -> Piece:
        """The piece with `block`, however long it takes: for a thread. Raises OSError."""
        first = _first_of_piece(block, block_size)
        count, offset, length = _extent(content.size, block_size, first)
        piece = Piece(self._room, first, count, length, block_size)
        content.read(piece.payloads, offset)
        return piece

    def keep(self, content: Content, block_size: int, piece: Piece) -> None:
        """Have a piece at hand for the next transfers, and drop those not used for longest."""
        piece.payloads.clear()
        self._kept[(content.key, block_size, piece.first)] = piece
        self.kept_bytes = self.kept_bytes + piece.length
        while self.kept_bytes > self._most:
            self.kept_bytes -= self._kept.popitem(last=False)[1].length


def _blocks_of_piece(block_size: int) -> int:
    return max(min(MAX_SEGMENTS, MAX_SEGMENTED // (block_size + 4)), 1)


def _first_of_piece(block: int, block_size: int) -> int:
    blocks = _blocks_of_piece(block_size)
    return (block - 1) // blocks * blocks + 1


def _extent(size: int, block_size: int, first: int) -> tuple[int, int, int]:
    """How many blocks a piece has, where its payload begins and how long that is, bytes."""
    blocks = _blocks_of_piece(block_size)
    last = size // block_size + 1  # shorter than the others, maybe empty
    offset = (first - 1) * block_size
    return min(blocks, last - first + 1), offset, min(blocks * block_size, size - offset)
