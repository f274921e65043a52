import heapq
import math
import random
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pxeboot.errors import MalformedPacket, PxebootError
from pxeboot.tftp.packet import Ack, Data, Error, OptionAck, ReadRequest, WriteRequest, decode, encode
from pxeboot.tftp.transfer import (
    MAX_NETASCII,
    MAX_WAIT_S,
    NO_OPTIONS,
    Granted,
    TftpLimits,
    Transfer,
    negotiate,
    plain_name,
    refusal,
    translate,
)

LIMITS = TftpLimits(max_block_size=1468, max_window_size=64)
SEEDS = st.integers(0, 2**32)
CONTENTS = st.integers(0, 3000).map(lambda size: random.Random(size).randbytes(size))


def ack(block: int) -> bytes:
    return encode(Ack(block & 0xFFFF))


def blocks(packets: list[bytes]) -> list[int]:
    """The block numbers of DATA packets; anything else fails the test."""
    read = [decode(packet) for packet in packets]
    assert all(isinstance(packet, Data) for packet in read)
    return [packet.block for packet in read if isinstance(packet, Data)]


class Client:
    """Reads as the RFCs say, and as naively as they allow: it acknowledges every DATA it has had before.

    That is the client that makes a Sorcerer's Apprentice of a server which answers repeated ACKs.
    """

    WAIT_S = 3.0

    def __init__(self, granted: Granted) -> None:
        self.granted = granted
        self.received = b""
        self.complete = False
        self.next = 0 if granted.options else 1  # block awaited, not wrapped
        self.in_window = 0
        self.spoke = False

    def receive(self, data: bytes) -> list[bytes]:
        packet = decode(data)
        if isinstance(packet, OptionAck):
            assert {k: int(v) for k, v in packet.options.items()} == self.granted.options
            self.next = max(self.next, 1)
            return self.acknowledge()
        assert isinstance(packet, Data)
        if self.next == 0:
            return []  # DATA before the OACK is nothing we asked for
        if packet.block != self.next & 0xFFFF or self.complete:
            return self.acknowledge()
        self.received += packet.payload
        self.next += 1
        self.in_window += 1
        self.complete = len(packet.payload) < self.granted.block_size
        if self.complete or self.in_window == self.granted.window_size:
            return self.acknowledge()
        return []

    def acknowledge(self) -> list[bytes]:
        self.spoke, self.in_window = True, 0
        return [ack(self.next - 1)]


class Link:
    """A network with a clock: loses, repeats and delays (so reorders) by chance, alike for one seed."""

    def __init__(self, seed: int, loss: float = 0.0, repeat: float = 0.0, delay_s: float = 0.0001) -> None:
        """`repeat` holds for both directions; with the `delay_s` given here nothing is reordered."""
        self.chance = random.Random(seed)
        self.loss, self.delay_s = loss, delay_s
        self.repeat = {"client": repeat, "server": repeat}
        self.order = count()
        self.flying: list[tuple[float, int, str, bytes]] = []
        self.sent = 0

    def send(self, now: float, to: str, packets: list[bytes]) -> None:
        for packet in packets:
            self.sent += to == "client"
            for _ in range(1 + (self.chance.random() < self.repeat[to])):
                if self.chance.random() >= self.loss:
                    arrival = now + self.chance.uniform(0.0001, self.delay_s)
                    heapq.heappush(self.flying, (arrival, next(self.order), to, packet))

    def run(self, transfer: Transfer, client: Client) -> None:
        """Deliver until the transfer has ended and nothing flies any more."""
        now, client_due = 0.0, Client.WAIT_S
        self.send(now, "client", transfer.start(now))
        while self.flying or transfer.result is None:
            arrival = self.flying[0][0] if self.flying else math.inf
            now = min(arrival, transfer.deadline, math.inf if client.complete else client_due)
            assert (now < 20_000, self.sent < 20_000) == (True, True), "it stalls, or floods"
            if now == arrival:
                _, _, to, packet = heapq.heappop(self.flying)
                if to == "server":
                    self.send(now, "client", transfer.receive(packet, now))
                else:
                    client_due = now + Client.WAIT_S
                    self.send(now, "server", client.receive(packet))
            elif now == transfer.deadline:
                self.send(now, "client", transfer.tick(now))
            else:
                client_due = now + Client.WAIT_S
                self.send(now, "server", client.acknowledge() if client.spoke else [])


GRANTS = st.sampled_from(
    [
        NO_OPTIONS,
        Granted({"tsize": 3000}),
        Granted({"blksize": 8}),
        Granted({"blksize": 8, "windowsize": 4}),
        Granted({"windowsize": 64, "blksize": 16, "timeout": 1}),
    ]
)


@settings(deadline=None)
@given(GRANTS, CONTENTS, SEEDS)
def test_the_file_arrives_over_a_link_that_loses_repeats_and_reorders(
    granted: Granted, content: bytes, seed: int
) -> None:
    transfer, client = Transfer(content, granted, max_retransmits=100), Client(granted)
    Link(seed, loss=0.2, repeat=0.2, delay_s=0.4).run(transfer, client)
    assert (client.received, client.complete, transfer.result) == (content, True, "done")
    assert transfer.bytes == len(content)


@settings(deadline=None)
@given(GRANTS, CONTENTS, SEEDS)
def test_nothing_is_sent_twice_however_often_acks_are_repeated(
    granted: Granted, content: bytes, seed: int
) -> None:
    transfer, client, link = Transfer(content, granted), Client(granted), Link(seed)
    link.repeat["server"] = 0.5
    link.run(transfer, client)
    packets = len(content) // granted.block_size + 1 + bool(granted.options)
    assert (client.received, link.sent, transfer.retransmissions) == (content, packets, 0)


@settings(deadline=None)
@given(CONTENTS, SEEDS)
def test_delayed_and_repeated_acks_of_single_blocks_never_double_a_block(content: bytes, seed: int) -> None:
    granted = Granted({"blksize": 8})
    transfer, client, link = Transfer(content, granted), Client(granted), Link(seed, repeat=0.5, delay_s=0.4)
    link.run(transfer, client)
    assert (client.received, transfer.retransmissions) == (content, 0)


@given(st.binary(max_size=100), st.floats(0, 100))
def test_any_bytes_from_the_client_are_taken_or_refused(data: bytes, now: float) -> None:
    transfer = Transfer(b"x" * 2000)
    transfer.start(now=0.0)
    try:
        transfer.receive(data, now)
    except MalformedPacket:
        assert transfer.result is None


@pytest.mark.parametrize("granted", [NO_OPTIONS, Granted({"blksize": 1428}), Granted({"windowsize": 4})])
@pytest.mark.parametrize("blocks_of_content", [0, 1, 2, 4, 5])
@pytest.mark.parametrize("more", [-1, 0, 1])
def test_every_size_around_a_whole_block_arrives(granted: Granted, blocks_of_content: int, more: int) -> None:
    content = bytes(max(blocks_of_content * granted.block_size + more, 0))
    transfer, client, link = Transfer(content, granted), Client(granted), Link(seed=1)
    link.run(transfer, client)
    assert (client.received, transfer.result) == (content, "done")
    assert link.sent == len(content) // granted.block_size + 1 + bool(granted.options)


@pytest.mark.parametrize("window", [1, 64])
def test_block_numbers_wrap_to_zero(window: int) -> None:
    granted = Granted({"blksize": 8, "windowsize": window})
    content = random.Random(1).randbytes(8 * 65540 + 3)
    transfer = Transfer(content, granted)
    packets = transfer.start(now=0.0)
    packets, acked, payloads = transfer.receive(ack(0), now=0.0), 0, []
    while packets:
        assert blocks(packets) == [(acked + 1 + i) & 0xFFFF for i in range(len(packets))]
        payloads += [packet[4:] for packet in packets]
        acked += len(packets)
        packets = transfer.receive(ack(acked), now=0.0)
    assert (acked, transfer.result) == (65541, "done")
    assert b"".join(payloads) == content


def test_an_ack_is_answered_by_the_next_block_alone() -> None:
    transfer = Transfer(b"x" * 2000)
    assert blocks(transfer.start(now=0.0)) == [1]
    assert blocks(transfer.receive(ack(1), now=0.1)) == [2]


def test_a_repeated_ack_is_not_answered() -> None:
    transfer = Transfer(b"x" * 2000)
    transfer.start(now=0.0)
    transfer.receive(ack(1), now=0.1)
    assert [transfer.receive(ack(block), now=0.2) for block in (1, 0, 3, 65535)] == [[], [], [], []]
    assert transfer.deadline == 0.1 + 1.0  # nor does it put off the retransmission


def test_a_gap_in_a_window_is_sent_again_from_its_first_block() -> None:
    transfer = Transfer(b"x" * 8 * 20, Granted({"blksize": 8, "windowsize": 4}))
    transfer.start(now=0.0)
    assert blocks(transfer.receive(ack(0), now=0.0)) == [1, 2, 3, 4]
    assert blocks(transfer.receive(ack(2), now=0.1)) == [3, 4, 5, 6]
    assert transfer.retransmissions == 2


def test_options_are_acknowledged_before_the_first_block() -> None:
    transfer = Transfer(b"x" * 2000, Granted({"tsize": 2000, "blksize": 1024}))
    assert transfer.start(now=0.0) == [encode(OptionAck({"tsize": "2000", "blksize": "1024"}))]
    assert transfer.receive(ack(0), now=0.0) == [encode(Data(1, b"x" * 1024))]


def test_silence_is_answered_ever_more_slowly_and_then_ends_the_transfer() -> None:
    transfer = Transfer(b"x" * 2000, retransmit_s=1.0, max_retransmits=2)
    transfer.start(now=0.0)
    times = (0.5, 1.0, 1.5, 2.9, 3.0, 6.9, 7.0, 100.0)
    assert [len(transfer.tick(now)) for now in times] == [0, 1, 0, 0, 1, 0, 0, 0]
    assert (transfer.result, transfer.retransmissions) == ("no ACK for block 1", 2)
    assert transfer.deadline == math.inf


def test_the_wait_grows_no_longer_than_its_limit() -> None:
    transfer = Transfer(b"x" * 2000, Granted({"timeout": 255}))
    transfer.start(now=0.0)
    assert transfer.deadline == MAX_WAIT_S
    transfer.tick(transfer.deadline)
    assert transfer.deadline == 2 * MAX_WAIT_S


def test_a_client_gets_the_timeout_it_asked_for() -> None:
    transfer = Transfer(b"x" * 2000, Granted({"timeout": 3}))
    transfer.start(now=10.0)
    assert transfer.deadline == 13.0


def test_an_ack_ends_the_backing_off() -> None:
    transfer = Transfer(b"x" * 2000, max_retransmits=2)
    transfer.start(now=0.0)
    transfer.tick(1.0)
    transfer.tick(3.0)
    transfer.receive(ack(1), now=4.0)
    assert transfer.deadline == 5.0
    assert [len(transfer.tick(now)) for now in (5.0, 7.0)] == [1, 1]


def test_a_lost_last_ack_is_a_success() -> None:
    transfer = Transfer(b"x" * 600, max_retransmits=1)
    transfer.start(now=0.0)
    transfer.receive(ack(1), now=0.1)
    assert blocks(transfer.tick(2.0)) == [2]
    transfer.tick(10.0)
    assert (transfer.result, transfer.bytes) == ("done", 600)


def test_a_client_that_falls_silent_halfway_did_not_get_the_file() -> None:
    transfer = Transfer(b"x" * 2000, max_retransmits=0)
    transfer.start(now=0.0)
    transfer.receive(ack(1), now=0.1)
    transfer.tick(10.0)
    assert (transfer.result, transfer.bytes) == ("no ACK for block 2", 512)


@pytest.mark.parametrize("granted", [NO_OPTIONS, Granted({"tsize": 5})])
def test_a_client_never_heard_of_did_not_get_the_file(granted: Granted) -> None:
    transfer = Transfer(b"short", granted, max_retransmits=0)
    transfer.start(now=0.0)
    transfer.tick(10.0)
    assert (transfer.done, transfer.bytes) == (False, 0)
    assert transfer.failure in ("no ACK for block 1", "no ACK for the options")


@pytest.mark.parametrize("code", [0, 8])
def test_an_error_after_the_options_is_a_size_probe(code: int) -> None:
    transfer = Transfer(b"x" * 2000, Granted({"tsize": 2000}))
    transfer.start(now=0.0)
    assert transfer.receive(encode(Error(code, "User aborted")), now=0.1) == []
    assert (transfer.result, transfer.failure, transfer.deadline) == ("size probe", None, math.inf)


def test_an_error_at_any_other_time_is_a_failure() -> None:
    for granted, code, acks in [
        (NO_OPTIONS, 8, 0),
        (Granted({"tsize": 9}), 3, 0),
        (Granted({"tsize": 9}), 8, 1),
    ]:
        transfer = Transfer(b"x" * 2000, granted)
        transfer.start(now=0.0)
        for block in range(acks):
            transfer.receive(ack(block), now=0.1)
        assert transfer.receive(encode(Error(code, "no\nroom")), now=0.2) == []
        assert transfer.result == f"client sent error {code} 'no\\nroom'"
        assert transfer.receive(ack(1), now=0.3) == transfer.tick(100.0) == []


def test_what_is_neither_ack_nor_error_changes_nothing() -> None:
    transfer = Transfer(b"x" * 2000)
    transfer.start(now=0.0)
    for packet in (Data(1, b""), ReadRequest("a", "octet"), OptionAck({"tsize": "1"})):
        assert transfer.receive(encode(packet), now=0.5) == []
    assert (transfer.result, transfer.deadline) == (None, 1.0)


def test_a_repeated_request_belongs_to_the_transfer_until_the_client_has_gone_on() -> None:
    transfer = Transfer(b"x" * 2000)
    transfer.start(now=0.0)
    assert transfer.takes_repeat(now=30.0)  # our answers may all be lost
    transfer.receive(ack(1), now=31.0)
    assert [transfer.takes_repeat(now) for now in (31.5, 33.0)] == [True, False]


def test_a_request_after_the_end_is_a_new_one() -> None:
    transfer = Transfer(b"x" * 2000, Granted({"tsize": 2000}))
    transfer.start(now=0.0)
    transfer.receive(encode(Error(8, "")), now=0.1)
    assert not transfer.takes_repeat(now=0.1)


def test_content_is_shared_and_not_copied() -> None:
    content = bytearray(b"x" * 2000)
    transfer = Transfer(memoryview(content))
    content[600] = ord("y")
    transfer.start(now=0.0)
    assert b"y" in transfer.receive(ack(1), now=0.1)[0]


@pytest.mark.parametrize(
    ("asked", "granted"),
    [
        ({}, {}),
        ({"blksize": "1428"}, {"blksize": 1428}),
        ({"blksize": "65464"}, {"blksize": 1468}),
        ({"blksize": "1"}, {"blksize": 8}),
        ({"blksize": "big"}, {}),
        ({"blksize": "-8"}, {}),
        ({"blksize": "١٢"}, {}),
        ({"blksize": "9" * 900}, {}),
        ({"tsize": "0"}, {"tsize": 5000}),
        ({"timeout": "1"}, {"timeout": 1}),
        ({"timeout": "255"}, {"timeout": 255}),
        ({"timeout": "0"}, {}),
        ({"timeout": "256"}, {}),
        ({"windowsize": "4"}, {"windowsize": 4}),
        ({"windowsize": "0"}, {"windowsize": 1}),
        ({"windowsize": "65535"}, {"windowsize": 64}),
        ({"multicast": "", "rollover": "1", "tsize": "0"}, {"tsize": 5000}),
    ],
)
def test_options_are_granted_within_the_limits(asked: dict[str, str], granted: dict[str, int]) -> None:
    assert negotiate(asked, LIMITS, size=5000).options == granted


def test_the_size_of_an_empty_file_is_not_told() -> None:
    assert negotiate({"tsize": "0", "blksize": "512"}, LIMITS, size=0).options == {"blksize": 512}


OPTION_NAMES = st.sampled_from(["blksize", "tsize", "timeout", "windowsize"]) | st.text(max_size=9)


@given(st.dictionaries(OPTION_NAMES, st.integers().map(str) | st.text(max_size=5)))
def test_no_option_is_granted_unasked_or_out_of_bounds(asked: dict[str, str]) -> None:
    granted = negotiate(asked, LIMITS, size=7)
    assert set(granted.options) <= set(asked) & {"blksize", "tsize", "timeout", "windowsize"}
    assert 8 <= granted.block_size <= 1468
    assert 1 <= granted.window_size <= 64
    assert granted.timeout_s is None or str(granted.timeout_s) == asked["timeout"].lstrip("0")


def test_writing_and_odd_modes_are_refused_and_reading_is_not() -> None:
    requests: list[ReadRequest | WriteRequest] = [WriteRequest("a", "octet"), ReadRequest("a", "mail")]
    requests += [ReadRequest("a", "octet"), ReadRequest("a", "netascii")]
    errors = [refusal(request) for request in requests]
    assert [error and error.code for error in errors] == [2, 4, None, None]


@pytest.mark.parametrize("name", ["boot/x.efi", "/boot/x.efi", "\\boot\\x.efi", "//boot\\x.efi"])
def test_names_lose_what_firmware_adds(name: str) -> None:
    assert plain_name(name) == "boot/x.efi"


def test_netascii_has_its_line_ends_and_octet_is_left_alone() -> None:
    assert translate(b"a\nb\rc\r\n", "netascii") == b"a\r\nb\r\0c\r\0\r\n"
    content = b"a\n"
    assert translate(content, "octet") is content
    with pytest.raises(PxebootError, match="netascii"):
        translate(bytes(MAX_NETASCII + 1), "netascii")
