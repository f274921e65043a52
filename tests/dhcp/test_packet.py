"""The packet against any bytes, against itself, and against scapy, which is not us."""

import contextlib
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import IP, UDP

from pxeboot.dhcp import packet
from pxeboot.dhcp.frame import internet_checksum, udp_datagram
from pxeboot.dhcp.options import MessageType
from pxeboot.dhcp.packet import MIN_BYTES, Packet
from pxeboot.errors import MalformedPacket

DATA = Path(__file__).parent.parent / "data"
CAPTURES = sorted([*DATA.glob("discover-*.bin"), *DATA.glob("request-*.bin")])

addresses = st.ip_addresses(v=4)
no_nul = st.binary(max_size=60).map(lambda raw: raw.replace(b"\0", b"x"))
packets = st.builds(
    Packet,
    op=st.sampled_from([1, 2]),
    xid=st.integers(0, 2**32 - 1),
    chaddr=st.binary(min_size=6, max_size=6),
    hops=st.integers(0, 16),
    secs=st.integers(0, 65535),
    flags=st.sampled_from([0, 0x8000]),
    ciaddr=addresses,
    yiaddr=addresses,
    siaddr=addresses,
    giaddr=addresses,
    sname=no_nul,
    file=no_nul,
    options=st.dictionaries(
        st.integers(1, 254).filter(lambda code: code != 52), st.binary(max_size=300), max_size=8
    ),
)


@given(st.binary(max_size=600))
def test_any_bytes_decode_or_are_refused(data: bytes) -> None:
    with contextlib.suppress(MalformedPacket):
        packet.decode(data)


@given(packets, st.integers(0, 600), st.binary(min_size=1, max_size=3))
def test_any_damaged_packet_decodes_or_is_refused(sent: Packet, at: int, damage: bytes) -> None:
    data = bytearray(packet.encode(sent))
    data[at : at + len(damage)] = damage
    with contextlib.suppress(MalformedPacket):
        decoded = packet.decode(bytes(data))
        assert decoded.message_type in MessageType
        assert decoded.mac


@given(packets)
def test_any_packet_survives(sent: Packet) -> None:
    data = packet.encode(sent)
    assert len(data) >= MIN_BYTES
    assert packet.decode(data) == sent


@given(packets)
def test_scapy_reads_what_we_write(sent: Packet) -> None:
    read = BOOTP(packet.encode(sent))
    assert (read.op, read.xid, read.secs, int(read.flags)) == (sent.op, sent.xid, sent.secs, sent.flags)
    assert [read.ciaddr, read.yiaddr, read.siaddr, read.giaddr] == [
        str(item) for item in (sent.ciaddr, sent.yiaddr, sent.siaddr, sent.giaddr)
    ]
    assert read.chaddr[:6] == sent.chaddr
    assert read.file.rstrip(b"\0") == sent.file


def test_we_read_what_scapy_writes() -> None:
    theirs = BOOTP(op=1, xid=77, chaddr=b"\x52\x54\0\0\0\1", ciaddr="10.0.0.9", flags="B") / DHCP(
        options=[
            ("message-type", "request"),
            ("requested_addr", "10.0.0.9"),
            ("server_id", "10.0.0.1"),
            "end",
        ]
    )
    ours = packet.decode(bytes(theirs))
    assert (ours.xid, ours.message_type, ours.wants_broadcast) == (77, MessageType.REQUEST, True)
    assert ours.mac == "52:54:00:00:00:01"
    assert (ours.ciaddr, ours.options[54]) == (IPv4Address("10.0.0.9"), bytes((10, 0, 0, 1)))


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.stem)
def test_scapy_and_we_read_the_same_of_real_firmware(path: Path) -> None:
    data = path.read_bytes()
    ours, theirs = packet.decode(data), BOOTP(data)
    assert (ours.xid, ours.mac.packed) == (theirs.xid, theirs.chaddr[:6])
    assert (
        ours.message_type == dict(item[:2] for item in theirs[DHCP].options if len(item) > 1)["message-type"]
    )


def test_there_are_captures() -> None:
    assert len(CAPTURES) >= 10


def test_options_in_file_and_sname_are_read() -> None:
    sent = Packet(1, 1, b"abcdef", options={53: b"\1"})
    data = bytearray(packet.encode(sent).rstrip(b"\0\xff") + b"\x34\x01\x03\xff")
    data[44 : 44 + 8] = b"\x0c\x02ab\xff\0\0\0"  # sname: host name
    data[108 : 108 + 8] = b"\x0c\x02xy\xff\0\0\0"  # file, read before sname
    decoded = packet.decode(bytes(data))
    assert decoded.options == {53: b"\1", 12: b"xyab"}
    assert (decoded.sname, decoded.file) == (b"", b"")


def test_plain_bootp_is_refused() -> None:
    with pytest.raises(MalformedPacket, match="no magic cookie"):
        packet.decode(bytes(300))
    with pytest.raises(MalformedPacket, match="no message type"):
        _ = Packet(1, 1, b"abcdef").message_type


@given(addresses, addresses, st.integers(1, 65535), st.binary(max_size=400))
def test_scapy_finds_our_datagram_right(
    source: IPv4Address, destination: IPv4Address, port: int, payload: bytes
) -> None:
    raw = udp_datagram((source, 67), (destination, port), payload)
    theirs = IP(raw)
    assert (theirs.src, theirs.dst, theirs[UDP].sport, theirs[UDP].dport) == (
        str(source),
        str(destination),
        67,
        port,
    )
    del theirs.chksum, theirs[UDP].chksum  # scapy computes them anew
    assert bytes(theirs) == raw


def test_the_checksum_of_rfc_1071() -> None:
    assert internet_checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0x220D
