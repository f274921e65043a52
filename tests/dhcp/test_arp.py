"""Probes are what other implementations take for ARP probes, and every claim is read from any bytes."""

import contextlib
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.l2 import ARP, Ether

from pxeboot.dhcp.arp import Claim, decode, encode_probe
from pxeboot.errors import MalformedPacket
from pxeboot.mac import Mac

US, THEM = Mac("52:54:00:00:00:01"), Mac("52:54:00:00:00:02")
ADDRESS = IPv4Address("10.77.0.100")


def test_scapy_reads_a_probe_of_rfc_5227() -> None:
    frame = Ether(encode_probe(US, ADDRESS))
    arp = frame[ARP]
    assert (frame.dst, frame.src, arp.op) == ("ff:ff:ff:ff:ff:ff", US, 1)
    assert (arp.hwsrc, arp.psrc, arp.pdst) == (US, "0.0.0.0", str(ADDRESS))
    assert (arp.hwtype, arp.ptype, arp.hwlen, arp.plen) == (1, 0x0800, 6, 4)


@pytest.mark.parametrize("operation", [1, 2])
def test_requests_and_replies_of_scapy_tell_who_has_an_address(operation: int) -> None:
    frame = Ether(dst=US) / ARP(op=operation, hwsrc=THEM, psrc=str(ADDRESS), hwdst=US, pdst="0.0.0.0")
    assert decode(bytes(frame).ljust(60, b"\0")) == Claim(THEM, ADDRESS)  # padded as Ethernet does


@pytest.mark.parametrize("at", [12, 14, 16, 18, 19])  # ethertype; kinds and lengths of both addresses
def test_frames_that_are_not_arp_for_ipv4_on_ethernet_are_refused(at: int) -> None:
    frame = bytearray(encode_probe(US, ADDRESS))
    frame[at] += 1
    with pytest.raises(MalformedPacket, match="not ARP"):
        decode(bytes(frame))


@given(st.binary(max_size=64))
def test_any_bytes_decode_or_are_refused(data: bytes) -> None:
    with contextlib.suppress(MalformedPacket):
        decode(data)
