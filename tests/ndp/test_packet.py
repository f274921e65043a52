"""Router solicitations: any bytes, real ones, and what we say to them."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet6 import ICMPv6ND_RA, ICMPv6ND_RS, ICMPv6NDOptSrcLLAddr

from pxeboot.errors import MalformedPacket
from pxeboot.ndp.packet import decode_solicitation, encode_no_router

MAC = "52:54:00:77:00:01"


@given(st.binary(max_size=100))
def test_any_bytes_decode_or_are_refused(data: bytes) -> None:
    for packet in (data, b"\x85\0\0\0\0\0\0\0" + data):
        with contextlib.suppress(MalformedPacket):
            decode_solicitation(packet)


def test_who_asks_is_read_from_what_scapy_writes() -> None:
    assert decode_solicitation(bytes(ICMPv6ND_RS() / ICMPv6NDOptSrcLLAddr(lladdr=MAC))) == MAC


def test_a_solicitation_without_sender_is_refused() -> None:
    with pytest.raises(MalformedPacket, match="without the sender"):
        decode_solicitation(bytes(ICMPv6ND_RS()))


def test_scapy_reads_an_advertisement_that_configures_nothing() -> None:
    theirs = ICMPv6ND_RA(encode_no_router())
    assert (theirs.type, theirs.routerlifetime, theirs.M, theirs.O, theirs.chlim) == (134, 0, 0, 0, 0)
    assert not theirs.payload
