import ctypes
import errno
import os
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxeboot.segments import MAX_SEGMENTED, MAX_SEGMENTS
from pxeboot.tftp.content import File, Memory, Piece, Pieces, Room
from pxeboot.tftp.packet import Data, decode


def packets_of(piece: Piece) -> list[bytes]:
    data = ctypes.string_at(piece.address, piece.length)
    return [data[start : start + piece.stride] for start in range(0, len(data), piece.stride)]


def all_packets(content: Memory | File, block_size: int) -> list[bytes]:
    packets: list[bytes] = []
    pieces = Pieces()
    while len(packets) <= content.size // block_size:
        piece = pieces.read(content, block_size, len(packets) + 1)
        assert (piece.first, piece.stop - piece.first) == (len(packets) + 1, len(packets_of(piece)))
        assert piece.length <= MAX_SEGMENTED
        assert piece.stop - piece.first <= MAX_SEGMENTS
        pieces.keep(content, block_size, piece)
        assert pieces.find(content, block_size, piece.stop - 1) is piece
        packets += packets_of(piece)
    return packets


@given(st.integers(0, 30_000), st.sampled_from([8, 512, 1428, 9000, 65464]))
def test_every_block_is_in_a_piece_with_its_number(size: int, block_size: int) -> None:
    data = random.Random(size).randbytes(size)
    read = [decode(packet) for packet in all_packets(Memory(data), block_size)]
    blocks = range(1, size // block_size + 2)
    assert read == [Data(n & 0xFFFF, data[(n - 1) * block_size : n * block_size]) for n in blocks]


def test_block_numbers_wrap_to_zero_within_a_piece() -> None:
    numbers = [decode(packet) for packet in all_packets(Memory(bytes(8 * 65_600)), 8)]
    assert [packet.block for packet in numbers if isinstance(packet, Data)][65_534:65_537] == [65535, 0, 1]


def test_equal_content_is_made_into_packets_once() -> None:
    pieces = Pieces()
    first = pieces.find(Memory(b"x" * 5000), 512, 1)
    assert pieces.find(Memory(b"x" * 5000), 512, 2) is first
    assert pieces.find(Memory(b"x" * 5000), 1428, 1) is not first
    assert pieces.find(Memory(b"y" * 5000), 512, 1) is not first


def test_what_is_kept_has_a_bound_and_goes_by_last_use() -> None:
    contents = [Memory(bytes([number]) * 5000) for number in range(3)]
    pieces = Pieces(cache_bytes=2 * (5000 + 10 * 4))
    kept = [pieces.find(content, 512, 1) for content in contents[:2]]
    assert pieces.find(contents[0], 512, 1) is kept[0]
    pieces.find(contents[2], 512, 1)
    assert pieces.kept_bytes == 2 * 5040
    assert pieces.find(contents[0], 512, 1) is kept[0]
    assert pieces.find(contents[1], 512, 1) is not kept[1]


def test_memory_for_pieces_is_used_again_and_more_is_had_where_it_is_full() -> None:
    room = Room(2 << 16)
    pieces = [Piece(room, 1, 3, 20, 8) for _ in range(3)]
    for number, piece in enumerate(pieces):
        for payload in piece.payloads:
            payload[:] = bytes([number]) * len(payload)
    assert [packets_of(piece)[0][4:] for piece in pieces] == [bytes([number]) * 8 for number in range(3)]
    assert room.take() is None
    address = pieces.pop(1).address
    assert Piece(room, 1, 3, 20, 8).address == address


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(random.Random(1).randbytes(200_000))
    return path


def test_a_file_is_read_like_memory(path: Path) -> None:
    file = File(os.open(path, os.O_RDONLY))
    assert all_packets(file, 512) == all_packets(Memory(path.read_bytes()), 512)
    file.close()


def test_a_page_that_is_not_in_memory_must_be_waited_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = os.preadv

    def not_there(descriptor: int, parts: list[memoryview], offset: int, flags: int = 0) -> int:
        if flags:
            raise BlockingIOError(errno.EAGAIN, "")
        return kernel(descriptor, parts, offset)

    monkeypatch.setattr(os, "preadv", not_there)
    file, pieces = File(os.open(path, os.O_RDONLY)), Pieces()
    assert pieces.find(file, 512, 1) is None
    piece = pieces.read(file, 512, 1)
    pieces.keep(file, 512, piece)
    assert pieces.find(file, 512, 1) is piece
    file.close()


def test_a_file_cut_short_while_it_is_sent_is_an_error(path: Path) -> None:
    file = File(os.open(path, os.O_RDONLY))
    os.truncate(path, 100)
    assert not file.read_now([memoryview(bytearray(512))], 0)
    with pytest.raises(OSError, match="cut short"):
        Pieces().read(file, 512, 1)
    file.close()


def test_a_changed_file_is_another_content(path: Path) -> None:
    before = File(os.open(path, os.O_RDONLY))
    path.write_bytes(b"other")
    after = File(os.open(path, os.O_RDONLY))
    assert before.key != after.key
    before.close()
    after.close()
