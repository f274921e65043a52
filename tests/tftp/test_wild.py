"""Transfers over a network that loses, repeats, delays and reorders."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pxeboot.tftp.packet import Ack, Data, Error, OptionAck, ReadRequest
from pxeboot.tftp.transfer import (
    NO_OPTIONS,
    Granted,
)
from tests.tftp.wild import KINDS, Client, Fault, Wild

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


@pytest.mark.parametrize("granted", [NO_OPTIONS, Granted({"blksize": 1428}), Granted({"windowsize": 4})])
@pytest.mark.parametrize("blocks_of_content", [0, 1, 2, 4, 5])
@pytest.mark.parametrize("more", [-1, 0, 1])
def test_every_size_around_a_whole_block_arrives(granted: Granted, blocks_of_content: int, more: int) -> None:
    content = bytes(max(blocks_of_content * granted.block_size + more, 0))
    wild = Wild(1, content, Client(granted), {})
    wild.run()
    assert (wild.client.received, wild.transfer.result) == (content, "done")
    assert wild.sent[Data] + wild.sent[OptionAck] == packets_of(content, granted)


@settings(deadline=None)
@given(CONTENTS, SEEDS, st.floats(0.02, 0.06))
def test_a_slow_client_is_not_sent_everything_twice(content: bytes, seed: int, delay_s: float) -> None:
    granted = Granted({"blksize": 8})
    wild = Wild(seed, content, Client(granted), {})
    wild.client_takes_s = delay_s
    wild.run()
    assert wild.client.received == content
    assert wild.transfer.retransmissions <= 8  # in the beginning, until it is known how slow it is
