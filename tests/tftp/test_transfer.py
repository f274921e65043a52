import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pxeboot.errors import MalformedPacket, PxebootError
from pxeboot.tftp.packet import Ack, Data, Error, OptionAck, ReadRequest, WriteRequest, encode
from pxeboot.tftp.transfer import (
    FIRST_WAIT_S,
    LAST_REPEATS,
    LAST_SILENCE_S,
    MAX_NETASCII,
    MAX_WAIT_S,
    MIN_WAIT_S,
    NO_OPTIONS,
    NOTHING,
    REPEAT_S,
    ROUND_TRIPS,
    SILENCE_S,
    TIMEOUTS,
    Granted,
    TftpLimits,
    Transfer,
    check_netascii,
    negotiate,
    plain_name,
    refusal,
    to_netascii,
)
from tests.tftp.wild import KINDS, Client, Fault, Wild, ack

LIMITS = TftpLimits(max_block_size=1468, max_window_size=64)
SEEDS = st.integers(0, 2**32)
CONTENTS = st.integers(0, 3000).map(lambda size: random.Random(size).randbytes(size))
GRANTS = st.sampled_from(
    [
        NO_OPTIONS,
        Granted({"tsize": 3000}),
        Granted({"blksize": 8}),
        Granted({"blksize": 8, "windowsize": 4}),
        Granted({"windowsize": 64, "blksize": 16, "timeout": 1}),
    ]
)
FAULTS = {
    "lost": Fault(loss=0.4),
    "repeated": Fault(repeat=0.5),
    "overtaking each other": Fault(delay_s=0.004),
    "late": Fault(delay_s=0.6),
}


def packets_of(content: bytes, granted: Granted) -> int:
    """How many packets it takes where nothing goes wrong."""
    return len(content) // granted.block_size + 1 + bool(granted.options)


@pytest.mark.parametrize("kind", KINDS[:4])
@pytest.mark.parametrize("fault", FAULTS)
@settings(deadline=None, max_examples=30)
@given(granted=GRANTS, content=CONTENTS, seed=SEEDS)
def test_the_file_arrives_with_packets_of_one_kind(
    kind: type, fault: str, granted: Granted, content: bytes, seed: int
) -> None:
    wild = Wild(seed, content, Client(granted), {kind: FAULTS[fault]})
    wild.run()
    assert (wild.client.received, wild.client.complete) == (content, True)
    assert (wild.transfer.result, wild.transfer.acknowledged) == ("done", len(content))


@settings(deadline=None)
@given(GRANTS, CONTENTS, SEEDS)
def test_the_file_arrives_over_a_link_that_loses_repeats_and_reorders_all_kinds(
    granted: Granted, content: bytes, seed: int
) -> None:
    everything = dict.fromkeys(KINDS, Fault(loss=0.2, repeat=0.2, delay_s=0.3))
    wild = Wild(seed, content, Client(granted), everything)
    wild.run()
    assert (wild.client.received, wild.client.complete) == (content, True)
    assert wild.transfer.done


@pytest.mark.parametrize("fault", FAULTS)
@settings(deadline=None, max_examples=30)
@given(granted=GRANTS, at=st.integers(1, 6), seed=SEEDS)
def test_a_client_that_breaks_off_ends_its_transfer_with_its_error(
    fault: str, granted: Granted, at: int, seed: int
) -> None:
    wild = Wild(seed, bytes(20_000), Client(granted, gives_up_at=at), {Error: FAULTS[fault]})
    wild.run()
    # The error may be lost each time, but every DATA that comes is answered by another.
    assert wild.transfer.result == "client sent error 3 'no room'"
    assert wild.transfer.acknowledged < 20_000


@settings(deadline=None)
@given(GRANTS, CONTENTS, SEEDS)
def test_nothing_is_sent_twice_however_often_acks_are_repeated(
    granted: Granted, content: bytes, seed: int
) -> None:
    wild = Wild(seed, content, Client(granted), {Ack: Fault(repeat=0.5)})
    wild.run()
    sent = wild.sent[Data] + wild.sent[OptionAck]
    assert (sent, wild.transfer.retransmissions) == (packets_of(content, granted), 0)


@settings(deadline=None)
@given(CONTENTS, SEEDS)
def test_delayed_and_repeated_packets_of_single_blocks_never_double_a_block(
    content: bytes, seed: int
) -> None:
    granted = Granted({"blksize": 8})
    unordered = Fault(repeat=0.5, delay_s=0.4)
    wild = Wild(seed, content, Client(granted), {Ack: unordered, Data: unordered})
    wild.run()
    assert wild.client.received == content
    assert wild.sent[Data] == packets_of(content, granted) - 1 + wild.resent  # by the clock, not by an ACK


@settings(deadline=None)
@given(GRANTS, CONTENTS, SEEDS)
def test_repeated_requests_begin_nothing_anew(granted: Granted, content: bytes, seed: int) -> None:
    wild = Wild(seed, content + bytes(3000), Client(granted), {ReadRequest: Fault(repeat=1.0)})
    wild.run()
    assert len(wild.transfers) == 1


@given(st.binary(max_size=100), st.floats(0, 100))
def test_any_bytes_from_the_client_are_taken_or_refused(data: bytes, now: float) -> None:
    transfer = Transfer(2000)
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
    wild = Wild(1, content, Client(granted), {})
    wild.run()
    assert (wild.client.received, wild.transfer.result) == (content, "done")
    assert wild.sent[Data] + wild.sent[OptionAck] == packets_of(content, granted)


def test_an_ack_is_answered_by_the_next_block_alone() -> None:
    transfer = Transfer(2000)
    assert transfer.start(now=0.0) == range(1, 2)
    assert transfer.receive(ack(1), now=0.1) == range(2, 3)


def test_a_repeated_ack_is_not_answered() -> None:
    transfer = Transfer(2000)
    transfer.start(now=0.0)
    transfer.receive(ack(1), now=0.1)
    due = transfer.deadline
    assert [transfer.receive(ack(block), now=0.2) for block in (1, 0, 3, 65535)] == [NOTHING] * 4
    assert transfer.deadline == due  # nor does it put off the retransmission


@pytest.mark.parametrize("window", [1, 64])
def test_block_numbers_wrap_to_zero(window: int) -> None:
    transfer = Transfer(8 * 140_000 + 3, Granted({"blksize": 8, "windowsize": window}))
    transfer.start(now=0.0)
    blocks, acked = transfer.receive(ack(0), now=0.0), 0
    while blocks:
        assert blocks.start == acked + 1
        acked = blocks.stop - 1
        blocks = transfer.receive(ack(acked), now=0.0)
    assert (acked, transfer.result) == (140_001, "done")


def test_a_window_ends_with_the_file() -> None:
    transfer = Transfer(8 * 6 + 1, Granted({"blksize": 8, "windowsize": 4}))
    assert transfer.start(now=0.0) == range(1)
    assert transfer.receive(ack(0), now=0.0) == range(1, 5)
    assert transfer.receive(ack(4), now=0.0) == range(5, 8)
    assert transfer.receive(ack(7), now=0.0) == NOTHING
    assert transfer.result == "done"


def test_a_gap_in_a_window_is_sent_again_from_its_first_block() -> None:
    transfer = Transfer(8 * 20, Granted({"blksize": 8, "windowsize": 4}))
    transfer.start(now=0.0)
    assert transfer.receive(ack(0), now=0.0) == range(1, 5)
    assert transfer.receive(ack(2), now=0.1) == range(3, 7)
    assert transfer.retransmissions == 2


def test_silence_is_answered_ever_more_slowly_and_then_ends_the_transfer() -> None:
    transfer = Transfer(2000)
    transfer.start(now=0.0)
    sent = []
    while transfer.result is None:
        sent.append(transfer.deadline)
        assert transfer.tick(transfer.deadline - 0.001) == NOTHING
        blocks = transfer.tick(transfer.deadline)
        assert blocks in (range(1, 2), NOTHING)
    assert sent == [0.25, 0.75, 1.75, 3.75, 7.75, 15.75, 23.75, 31.75, 39.75, 47.75, 55.75, 63.75]
    assert (transfer.result, transfer.retransmissions) == ("no ACK for block 1", 11)
    assert transfer.deadline == math.inf


def test_the_first_wait_is_short_and_later_ones_follow_the_clients_round_trips() -> None:
    transfer = Transfer(512 * 100)
    transfer.start(now=0.0)
    assert transfer.deadline == FIRST_WAIT_S
    transfer.receive(ack(1), now=0.0001)
    assert transfer.deadline == pytest.approx(0.0001 + MIN_WAIT_S)
    transfer.receive(ack(2), now=0.2001)
    assert transfer.deadline == pytest.approx(0.2001 + ROUND_TRIPS * 0.2)
    for number in range(3, 90):
        transfer.receive(ack(number), now=0.2001 + number / 10_000)
    assert transfer.deadline == pytest.approx(0.2001 + 89 / 10_000 + MIN_WAIT_S)


def test_an_answer_to_a_retransmission_says_nothing_of_the_round_trip() -> None:
    transfer = Transfer(2000)
    transfer.start(now=0.0)
    transfer.receive(ack(1), now=0.001)
    for now in (0.012, 0.034, 0.08):
        assert transfer.tick(now) == range(2, 3)
    transfer.receive(ack(2), now=0.141)
    assert transfer.deadline == pytest.approx(0.141 + MIN_WAIT_S)


def test_a_client_that_acknowledges_both_copies_was_only_slow_and_gets_more_time() -> None:
    transfer = Transfer(5000)
    transfer.start(now=0.0)
    transfer.receive(ack(1), now=0.001)
    for now in (0.012, 0.034):
        assert transfer.tick(now) == range(2, 3)
    assert transfer.receive(ack(2), now=0.051) == range(3, 4)
    assert transfer.receive(ack(2), now=0.052) == NOTHING
    assert transfer.deadline == pytest.approx(0.051 + ROUND_TRIPS * 0.05)
    transfer.receive(ack(3), now=0.101)
    assert (transfer.tick(0.201), transfer.retransmissions) == (NOTHING, 2)


@settings(deadline=None)
@given(CONTENTS, SEEDS, st.floats(0.02, 0.06))
def test_a_slow_client_is_not_sent_everything_twice(content: bytes, seed: int, delay_s: float) -> None:
    granted = Granted({"blksize": 8})
    wild = Wild(seed, content, Client(granted), {})
    wild.client_takes_s = delay_s
    wild.run()
    assert wild.client.received == content
    assert wild.transfer.retransmissions <= 8  # in the beginning, until it is known how slow it is


@pytest.mark.parametrize(
    ("granted", "longest"),
    [
        (NO_OPTIONS, MAX_WAIT_S),
        (Granted({"timeout": 255}), TIMEOUTS * MAX_WAIT_S),
        (Granted({"timeout": 6}), TIMEOUTS * 6),
        (Granted({"timeout": 1, "windowsize": 16}), MAX_WAIT_S),
    ],
)
def test_the_wait_grows_up_to_a_limit_that_leaves_the_client_time_to_repeat_an_ack(
    granted: Granted, longest: float
) -> None:
    transfer = Transfer(2000, granted)
    transfer.start(now=0.0)
    waits = []
    for _ in range(7):
        now = transfer.deadline
        transfer.tick(now)
        waits.append(transfer.deadline - now)
    assert waits == sorted(waits)
    assert waits[-1] == longest


def test_an_ack_ends_the_backing_off() -> None:
    transfer = Transfer(2000)
    transfer.start(now=0.0)
    transfer.tick(1.0)
    transfer.tick(3.0)
    transfer.receive(ack(1), now=4.0)
    assert transfer.deadline == 4.0 + MIN_WAIT_S
    assert [transfer.tick(now) for now in (4.02, 4.06)] == [range(2, 3)] * 2


def test_a_lost_last_ack_is_a_success() -> None:
    transfer = Transfer(600)
    transfer.start(now=0.0)
    transfer.receive(ack(1), now=0.1)
    for now in (0.5, 1.5, 3.5, 7.5):
        assert transfer.tick(now) == range(2, 3)
    assert transfer.tick(3.0 + LAST_SILENCE_S) == NOTHING
    assert (transfer.result, transfer.acknowledged) == ("done", 600)


def test_the_last_block_is_repeated_some_times_to_a_slow_client_too() -> None:
    transfer = Transfer(600)
    transfer.start(now=0.0)
    transfer.receive(ack(1), now=2.0)
    sent = 1
    while transfer.tick(transfer.deadline):
        sent += 1
    assert (sent, transfer.result) == (1 + LAST_REPEATS, "done")


def test_a_client_that_falls_silent_halfway_did_not_get_the_file() -> None:
    transfer = Transfer(2000)
    transfer.start(now=0.0)
    transfer.receive(ack(1), now=0.1)
    assert transfer.tick(LAST_SILENCE_S + 1) == range(2, 3)
    assert transfer.tick(SILENCE_S + 0.1) == NOTHING
    assert (transfer.result, transfer.acknowledged) == ("no ACK for block 2", 512)


@pytest.mark.parametrize("granted", [NO_OPTIONS, Granted({"tsize": 5})])
def test_a_client_never_heard_of_did_not_get_the_file(granted: Granted) -> None:
    transfer = Transfer(5, granted)
    transfer.start(now=0.0)
    transfer.tick(SILENCE_S)
    assert (transfer.done, transfer.acknowledged) == (False, 0)
    assert transfer.result in ("no ACK for block 1", "no ACK for the options")


@pytest.mark.parametrize("code", [0, 8])
def test_an_error_after_the_options_is_a_size_probe(code: int) -> None:
    transfer = Transfer(2000, Granted({"tsize": 2000}))
    transfer.start(now=0.0)
    assert transfer.receive(encode(Error(code, "User aborted")), now=0.1) == NOTHING
    assert (transfer.result, transfer.done, transfer.deadline) == ("size probe", True, math.inf)


def test_an_error_at_any_other_time_is_a_failure() -> None:
    for granted, code, acks in [
        (NO_OPTIONS, 8, 0),
        (Granted({"tsize": 9}), 3, 0),
        (Granted({"tsize": 9}), 8, 1),
    ]:
        transfer = Transfer(2000, granted)
        transfer.start(now=0.0)
        for block in range(acks):
            transfer.receive(ack(block), now=0.1)
        assert transfer.receive(encode(Error(code, "no\nroom")), now=0.2) == NOTHING
        assert transfer.result == f"client sent error {code} 'no\\nroom'"
        assert not transfer.done
        assert transfer.receive(ack(1), now=0.3) == transfer.tick(100.0) == NOTHING


def test_what_is_neither_ack_nor_error_changes_nothing() -> None:
    transfer = Transfer(2000)
    transfer.start(now=0.0)
    for packet in (Data(1, b""), ReadRequest("a", "octet"), OptionAck({"tsize": "1"})):
        assert transfer.receive(encode(packet), now=0.4) == NOTHING
    assert (transfer.result, transfer.deadline) == (None, FIRST_WAIT_S)


def test_a_repeated_request_belongs_to_the_transfer_until_the_client_has_gone_on() -> None:
    transfer = Transfer(2000)
    transfer.start(now=0.0)
    assert transfer.takes_repeat(now=30.0)  # our answers may all be lost
    transfer.receive(ack(1), now=31.0)
    assert [transfer.takes_repeat(31.0 + after) for after in (REPEAT_S / 2, REPEAT_S)] == [True, False]


def test_a_request_after_the_end_is_a_new_one() -> None:
    transfer = Transfer(2000, Granted({"tsize": 2000}))
    transfer.start(now=0.0)
    transfer.receive(encode(Error(8, "")), now=0.1)
    assert not transfer.takes_repeat(now=0.1)


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


def test_the_size_of_an_empty_file_is_told_but_to_curl() -> None:
    assert negotiate({"tsize": "0"}, LIMITS, size=0).options == {"tsize": 0}
    curl = {"tsize": "0", "blksize": "512", "timeout": "6"}
    assert negotiate(curl, LIMITS, size=0).options == {"blksize": 512, "timeout": 6}


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


def test_netascii_has_its_line_ends_and_is_for_texts() -> None:
    assert to_netascii(b"a\nb\rc\r\n") == b"a\r\nb\r\0c\r\0\r\n"
    check_netascii(MAX_NETASCII)
    with pytest.raises(PxebootError, match="netascii"):
        check_netascii(MAX_NETASCII + 1)


@given(st.integers(3, 40), st.lists(st.floats(0, 0.01), min_size=1, max_size=38))
def test_acks_counted_in_one_go_are_worth_the_same_as_one_by_one(blocks: int, waits: list[float]) -> None:
    waits = waits[: blocks - 2]
    singly, counted = Transfer(512 * blocks), Transfer(512 * blocks)
    now = 0.0
    for transfer in (singly, counted):
        transfer.start(now)
        transfer.receive(ack(1), now)
    assert counted.steps == blocks - 2  # up to the last whole one
    for number, wait in enumerate(waits):
        now += wait
        assert singly.acknowledge(2 + number, now) == range(3 + number, 4 + number)
    counted.step(len(waits), now)
    for transfer in (singly, counted):
        assert transfer.acknowledged == 512 * (1 + len(waits))
        assert transfer.acknowledge(1 + len(waits), now) == NOTHING
        assert now + MIN_WAIT_S <= transfer.deadline <= now + MIN_WAIT_S + ROUND_TRIPS * 0.01
        assert transfer.acknowledge(2 + len(waits), now).start == 3 + len(waits)


@pytest.mark.parametrize("granted", [Granted({"windowsize": 2}), Granted({"tsize": 9})])
def test_where_more_than_lock_step_is_to_be_expected_no_ack_is_only_counted(granted: Granted) -> None:
    transfer = Transfer(512 * 10, granted)
    transfer.start(now=0.0)
    assert transfer.steps == 0


def test_after_a_retransmission_an_ack_is_looked_at() -> None:
    transfer = Transfer(512 * 10)
    transfer.start(now=0.0)
    transfer.tick(FIRST_WAIT_S)
    assert transfer.steps == 0
    transfer.receive(ack(1), now=1.0)
    assert transfer.steps == 8
    transfer.abandon("no more")
    assert transfer.steps == 0
