import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxeboot.errors import MalformedPacket
from pxeboot.tftp.packet import Data, Error, OptionAck, ReadRequest, encode
from pxeboot.tftp.transfer import (
    FIRST_WAIT_S,
    LAST_REPEATS,
    LAST_SILENCE_S,
    MAX_WAIT_S,
    MIN_WAIT_S,
    NO_OPTIONS,
    NOTHING,
    REPEAT_S,
    ROUND_TRIPS,
    SILENCE_S,
    TIMEOUTS,
    Granted,
    Transfer,
)
from tests.tftp.wild import ack


@given(st.binary(max_size=100), st.floats(0, 100))
def test_any_bytes_from_the_client_are_taken_or_refused(data: bytes, now: float) -> None:
    transfer = Transfer(2000)
    transfer.start(now=0.0)
    try:
        transfer.receive(data, now)
    except MalformedPacket:
        assert transfer.result is None


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
