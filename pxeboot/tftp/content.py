"""What is sent: content in memory or in a file, made into packets once for all transfers that send it."""

import contextlib
import os
import struct
from collections import OrderedDict
from collections.abc import Hashable
from typing import Protocol

from pxeboot.tftp.datagrams import MAX_SEGMENTED, MAX_SEGMENTS, Packets
from pxeboot.tftp.packet import Opcode

CACHE_BYTES = 64 << 20
"""Packets kept for the next who ask; a transfer itself holds one piece, 64 KiB."""
_READ_AHEAD = 1 << 20  # bytes
_DATA = struct.Struct(">HH")


class Content(Protocol):
    """Bytes that do not change while they are sent."""

    @property
    def size(self) -> int:
        """Bytes."""

    @property
    def key(self) -> Hashable:
        """Equal where the bytes are."""

    def read_now(self, offset: int, length: int) -> bytes | None:
        """That part, or None when it would have to be waited for. Raises OSError."""

    def read(self, offset: int, length: int) -> bytes:
        """That part, however long it takes. Raises OSError."""

    def close(self) -> None:
        """Nothing will be read any more."""


class Memory:
    """Content that is at hand."""

    def __init__(self, data: bytes) -> None:
        self.key = self._data = data
        """The bytes themselves: their hash is reckoned once, and equal content is one."""
        self.size = len(data)

    def read(self, offset: int, length: int) -> bytes:
        """That part."""
        return self._data[offset : offset + length]

    read_now = read

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

    def read_now(self, offset: int, length: int) -> bytes | None:
        """What the page cache holds; what comes next is fetched into it meanwhile."""
        buffer = bytearray(length)
        with contextlib.suppress(OSError):  # a file system without RWF_NOWAIT, as well as a page not there
            if os.preadv(self._descriptor, [buffer], offset, os.RWF_NOWAIT) == length:
                return bytes(buffer)
        return None

    def read(self, offset: int, length: int) -> bytes:
        """That part, from the disk if need be."""
        os.posix_fadvise(self._descriptor, offset + length, _READ_AHEAD, os.POSIX_FADV_WILLNEED)
        return os.pread(self._descriptor, length, offset)

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._descriptor)


class Piece(Packets):
    """The DATA packets of some blocks in a row: as many as one send with UDP_SEGMENT takes."""

    __slots__ = ("first", "stop")

    def __init__(self, first: int, count: int, payload: bytes, block_size: int) -> None:
        """`payload` is that of `count` blocks, of which the last may lack some or all of its bytes."""
        parts = []
        for number in range(count):
            parts.append(_DATA.pack(Opcode.DATA, (first + number) & 0xFFFF))  # wraps to 0, as clients expect
            parts.append(payload[number * block_size : (number + 1) * block_size])
        super().__init__(b"".join(parts), block_size + 4)
        self.first = first
        """Its first block."""
        self.stop = first + count
        """The block after its last."""


class Pieces:
    """Finds the piece that a block is in. Those used last are kept, for every transfer of equal content."""

    def __init__(self, cache_bytes: int = CACHE_BYTES) -> None:
        self.kept_bytes = 0
        self._most = cache_bytes
        self._kept: OrderedDict[Hashable, Piece] = OrderedDict()

    def find(self, content: Content, block_size: int, block: int) -> Piece | None:
        """The piece with `block`, or None where `read` must be waited for. Raises OSError."""
        first = _first_of_piece(block, block_size)
        piece = self._kept.get((content.key, block_size, first))
        if piece is not None:
            self._kept.move_to_end((content.key, block_size, first))
            return piece
        count, offset, length = _extent(content.size, block_size, first)
        payload = content.read_now(offset, length)
        if payload is None:
            return None
        piece = Piece(first, count, payload, block_size)
        self.keep(content, block_size, piece)
        return piece

    @staticmethod
    def read(content: Content, block_size: int, block: int) -> Piece:
        """The piece with `block`, however long it takes: for a thread. Raises OSError."""
        first = _first_of_piece(block, block_size)
        count, offset, length = _extent(content.size, block_size, first)
        payload = content.read(offset, length)
        if len(payload) != length:
            raise OSError("the file was cut short while it was sent")
        return Piece(first, count, payload, block_size)

    def keep(self, content: Content, block_size: int, piece: Piece) -> None:
        """Have a piece at hand for the next transfers, and drop those not used for longest."""
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
