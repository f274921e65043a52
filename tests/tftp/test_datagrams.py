import ctypes
import errno
import socket
import struct
from collections.abc import Iterator

import pytest

from pxeboot.tftp import datagrams
from pxeboot.tftp.datagrams import BATCH, MAX_DATAGRAM, Inbox, Outbox, Packets, address_of, peer_of

HERE = ("127.0.0.1", 0)


def udp() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    sock.bind(HERE)
    return sock


@pytest.fixture
def ours() -> Iterator[socket.socket]:
    with udp() as sock:
        yield sock


@pytest.fixture
def theirs() -> Iterator[socket.socket]:
    with udp() as sock:
        yield sock


def received(sock: socket.socket) -> list[bytes]:
    packets = []
    try:
        while True:
            packets.append(sock.recv(65536))
    except BlockingIOError:
        return packets


def test_a_peer_is_an_address_and_back() -> None:
    for address in (("10.77.0.1", 69), ("255.0.0.255", 65535), ("0.0.0.0", 0)):
        assert address_of(peer_of(address)) == address


def test_many_datagrams_come_with_their_senders_and_first_words(
    ours: socket.socket, theirs: socket.socket
) -> None:
    inbox = Inbox(ours)
    for number in range(BATCH + 3):
        theirs.sendto(struct.pack(">HH", 4, number), ours.getsockname())
    sender = peer_of(theirs.getsockname())
    assert list(inbox.receive()) == [(sender, 4 << 16 | number) for number in range(BATCH)]
    assert list(inbox.receive()) == [(sender, 4 << 16 | BATCH + number) for number in range(3)]
    assert not inbox.receive()


def test_datagrams_are_whole_up_to_the_most_read(ours: socket.socket, theirs: socket.socket) -> None:
    inbox = Inbox(ours)
    for data in (b"", b"abc", b"abcd", b"abcdefg", b"x" * 4000):
        theirs.sendto(data, ours.getsockname())
    words = [word for _, word in inbox.receive()]
    assert words[:3] == [0, int.from_bytes(b"abc\0", "big"), int.from_bytes(b"abcd", "big")]
    assert [inbox.datagram(index) for index in range(4)] == [b"", b"abc", b"abcd", b"abcdefg"]
    assert inbox.datagram(4) == b"x" * (MAX_DATAGRAM + 4)


def test_nothing_of_an_earlier_datagram_is_left_in_a_short_one(
    ours: socket.socket, theirs: socket.socket
) -> None:
    inbox = Inbox(ours)
    theirs.sendto(b"\0\4\0\7", ours.getsockname())
    assert inbox.receive()
    theirs.sendto(b"\0", ours.getsockname())
    assert [word for _, word in inbox.receive()] == [0]


def test_single_packets_go_each_to_its_peer(ours: socket.socket, theirs: socket.socket) -> None:
    outbox, packets = Outbox(ours), Packets(bytearray(b"aaaabbbbcc"), 4)
    with udp() as other:
        for peer, offset, length in ((theirs, 0, 4), (other, 4, 4), (theirs, 8, 2)):
            outbox.put_one(peer_of(peer.getsockname()), packets, offset, length)
        assert outbox.full
        assert outbox.flush()
        assert (received(theirs), received(other)) == ([b"aaaa", b"cc"], [b"bbbb"])
    assert not outbox.full


@pytest.mark.parametrize("segments", [True, False])
def test_a_window_arrives_as_its_packets(ours: socket.socket, theirs: socket.socket, segments: bool) -> None:
    outbox = Outbox(ours)
    outbox.segments = segments
    packets = Packets(bytearray(b"".join(bytes([number]) * 10 for number in range(64)) + b"end"), 10)
    outbox.put(peer_of(theirs.getsockname()), packets, 600, 43)
    outbox.put(peer_of(theirs.getsockname()), packets, 0, 10)
    assert outbox.flush()
    assert received(theirs) == [*(bytes([number]) * 10 for number in range(60, 64)), b"end", b"\0" * 10]


def test_more_than_a_batch_is_sent_in_one_flush(ours: socket.socket, theirs: socket.socket) -> None:
    outbox, packets = Outbox(ours), Packets(bytearray(range(200)), 1)
    for number in range(200):
        outbox.put_one(peer_of(theirs.getsockname()), packets, number, 1)
    assert outbox.flush()
    assert received(theirs) == [bytes([number]) for number in range(200)]


def test_where_the_kernel_cannot_cut_a_window_it_is_sent_in_single_packets(
    ours: socket.socket, theirs: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = datagrams._sendmmsg

    def refuse_windows(descriptor: int, start: object, count: int, flags: int) -> int:
        if start is outbox._windows.start:
            ctypes.set_errno(errno.EIO)
            return -1
        return int(kernel(descriptor, start, count, flags))

    monkeypatch.setattr(datagrams, "_sendmmsg", refuse_windows)
    outbox, packets = Outbox(ours), Packets(bytearray(b"aabbccdd"), 2)
    for offset in (0, 4):
        outbox.put(peer_of(theirs.getsockname()), packets, offset, 4)
    assert outbox.flush()
    assert received(theirs) == [b"aa", b"bb", b"cc", b"dd"]
    assert not outbox.segments


def test_what_has_no_route_is_lost_and_the_others_are_sent(theirs: socket.socket) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as bound:
        bound.bind(("127.0.0.1", 0))  # a loopback address cannot send to the outside: EINVAL
        outbox, packets = Outbox(bound), Packets(bytearray(b"data"), 4)
        outbox.put_one(peer_of(("192.0.2.1", 9)), packets, 0, 4)
        outbox.put_one(peer_of(theirs.getsockname()), packets, 0, 4)
        assert outbox.flush()
    assert received(theirs) == [b"data"]


def test_a_full_socket_keeps_what_it_did_not_take(
    ours: socket.socket, theirs: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = datagrams._sendmmsg
    taken = iter([2, -1, 1])

    def take_few(descriptor: int, start: object, count: int, flags: int) -> int:
        few = next(taken)
        if few < 0:
            ctypes.set_errno(errno.EAGAIN)
            return few
        return int(kernel(descriptor, start, few, flags))

    monkeypatch.setattr(datagrams, "_sendmmsg", take_few)
    outbox, packets = Outbox(ours), Packets(bytearray(b"abc"), 1)
    for offset in range(3):
        outbox.put_one(peer_of(theirs.getsockname()), packets, offset, 1)
    assert not outbox.flush()
    assert (outbox.full, received(theirs)) == (True, [b"a", b"b"])
    assert outbox.flush()
    assert received(theirs) == [b"c"]
