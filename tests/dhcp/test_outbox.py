"""Replies leave whole, each to its place, in one send or one by one. Real sockets on loopback."""

import errno
import logging
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Any

import pytest

from pxeboot.dhcp.outbox import Outbox
from pxeboot.dhcp.responder import Direct, Unicast
from pxeboot.mac import Mac
from pxeboot.segments import MAX_SEGMENTS, UDP_SEGMENT

HERE = IPv4Address("127.0.0.1")


@dataclass
class Recorder:
    """Stands before a socket: what was asked of it, and what it refuses."""

    real: Any = None
    refuse_segments: bool = False
    calls: list[int] = field(default_factory=list)
    """Datagrams of each send."""
    frames: list[tuple[bytes, Any]] = field(default_factory=list)

    def sendmsg(self, parts: list[bytes], control: list[tuple[int, int, bytes]], *rest: Any) -> int:
        if self.refuse_segments and any(kind == UDP_SEGMENT for _, kind, _ in control):
            raise OSError(errno.EIO, "Input/output error")
        self.calls.append(len(parts))
        return int(self.real.sendmsg(parts, control, *rest))

    def sendto(self, frame: bytes, place: Any) -> int:
        self.frames.append((frame, place))
        return len(frame)


@pytest.fixture
def relays() -> Iterator[list[socket.socket]]:
    """Two that receive."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other,
    ):
        for relay in (one, other):
            relay.bind((str(HERE), 0))
            relay.settimeout(2)
        yield [one, other]


@pytest.fixture
def udp() -> Iterator[Recorder]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as real:
        yield Recorder(real)


def _outbox(udp: Recorder, raw: Recorder | None = None) -> Outbox:
    return Outbox("lo", HERE, udp, raw or Recorder())  # type: ignore[arg-type]


def _place(relay: socket.socket) -> Unicast:
    return Unicast(HERE, relay.getsockname()[1])


def _letter(number: int, size: int = 300) -> bytes:
    return number.to_bytes(4, "big").ljust(size, b"\0")


def test_a_batch_reaches_every_relay_whole_and_in_order(udp: Recorder, relays: list[socket.socket]) -> None:
    places = [_place(relay) for relay in relays]
    batch = [(_letter(number, 300 + number % 3), places[number % 2]) for number in range(120)]
    _outbox(udp).send_all(batch)
    for relay, place in zip(relays, places, strict=True):
        got = [relay.recv(2000) for _ in range(60)]
        for size in (300, 301, 302):
            wanted = [payload for payload, to in batch if to is place and len(payload) == size]
            assert [payload for payload in got if len(payload) == size] == wanted
    assert udp.calls == [20] * 6


def test_more_than_one_send_can_carry_is_several(udp: Recorder, relays: list[socket.socket]) -> None:
    relay = relays[0]
    place = _place(relay)
    _outbox(udp).send_all([(_letter(number), place) for number in range(MAX_SEGMENTS + 2)])
    assert [int.from_bytes(relay.recv(2000)[:4], "big") for _ in range(MAX_SEGMENTS + 2)] == [
        *range(MAX_SEGMENTS + 2)
    ]
    assert udp.calls == [MAX_SEGMENTS, 2]


def test_large_replies_share_a_send_as_far_as_a_packet_goes(
    udp: Recorder, relays: list[socket.socket]
) -> None:
    place = _place(relays[0])
    _outbox(udp).send_all([(_letter(number, 1472), place) for number in range(50)])
    assert all(len(relays[0].recv(2000)) == 1472 for _ in range(50))
    assert udp.calls == [44, 6]


def test_where_the_kernel_cannot_cut_them_they_leave_one_by_one(
    udp: Recorder, relays: list[socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    udp.refuse_segments = True
    outbox, place = _outbox(udp), _place(relays[0])
    for first in (0, 5):
        outbox.send_all([(_letter(number), place) for number in range(first, first + 5)])
    assert [int.from_bytes(relays[0].recv(2000)[:4], "big") for _ in range(10)] == [*range(10)]
    assert udp.calls == [1] * 10
    assert [record.message for record in caplog.records] == [
        "no UDP_SEGMENT here (Input/output error): replies leave one by one"
    ]


def test_who_has_no_address_yet_gets_a_frame_each(udp: Recorder) -> None:
    raw = Recorder()
    mac = Mac("52:54:00:00:00:01")
    place = Direct(mac, IPv4Address("10.77.0.100"))
    _outbox(udp, raw).send_all([(_letter(number), place) for number in range(3)])
    assert udp.calls == []
    assert [to for _, to in raw.frames] == [("lo", 0x0800, 0, 0, mac.packed)] * 3
    assert [frame[28:32] for frame, _ in raw.frames] == [bytes((0, 0, 0, number)) for number in range(3)]


def test_a_place_that_cannot_be_reached_is_told_and_the_others_get_theirs(
    udp: Recorder, relays: list[socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    outbox = _outbox(udp)
    nowhere = Unicast(IPv4Address("240.0.0.1"), 67)
    outbox.send_all([(_letter(1), nowhere), (_letter(2), _place(relays[0]))])
    assert relays[0].recv(2000) == _letter(2)
    assert "00:00:00:00:00:00: reply not sent: " in caplog.text
