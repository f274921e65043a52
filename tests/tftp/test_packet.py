import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scapy.layers import tftp as scapy_tftp

from pxeboot.errors import MalformedPacket
from pxeboot.tftp import packet
from pxeboot.tftp.packet import Ack, Data, Error, OptionAck, Packet, ReadRequest, WriteRequest, decode, encode

WORDS = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)
NAMES = st.text(min_size=1, max_size=100).filter(str.isprintable)
MODES = st.sampled_from(["octet", "netascii", "mail"])
OPTIONS = st.dictionaries(WORDS.filter(bool).map(str.lower), WORDS, max_size=5)
NUMBERS = st.integers(0, 0xFFFF)
PACKETS: st.SearchStrategy[Packet] = st.one_of(
    st.builds(ReadRequest, NAMES, MODES, OPTIONS),
    st.builds(WriteRequest, NAMES, MODES, OPTIONS),
    st.builds(Data, NUMBERS, st.binary(max_size=1468)),
    st.builds(Ack, NUMBERS),
    st.builds(Error, NUMBERS, WORDS),
    st.builds(OptionAck, OPTIONS.filter(bool)),
)


@given(st.one_of(st.binary(max_size=600), st.binary(max_size=600).map(lambda tail: b"\0\1" + tail)))
@example(b"")
@example(b"\0\1\0\0")
@example(b"\0\1\xff\0octet\0")
def test_any_bytes_decode_or_are_refused(data: bytes) -> None:
    with contextlib.suppress(MalformedPacket):
        decode(data)


@given(PACKETS)
def test_what_is_encoded_decodes_to_the_same(sent: Packet) -> None:
    assert decode(encode(sent)) == sent


def test_scapy_reads_what_we_write() -> None:
    request = scapy_tftp.TFTP(encode(ReadRequest("a/b", "octet", {"blksize": "1428", "tsize": "0"})))
    assert (request.op, request.filename, request.mode) == (1, b"a/b", b"octet")
    options = request[scapy_tftp.TFTP_Options].options
    assert [(option.oname, option.value) for option in options] == [(b"blksize", b"1428"), (b"tsize", b"0")]
    data = scapy_tftp.TFTP(encode(Data(513, b"text")))
    assert (data.op, data.block, data.payload.payload.load) == (3, 513, b"text")
    error = scapy_tftp.TFTP(encode(Error(1, "File not found")))
    assert (error.op, error.errorcode, error.errormsg) == (5, 1, b"File not found")


def test_we_read_what_scapy_writes() -> None:
    request = scapy_tftp.TFTP() / scapy_tftp.TFTP_RRQ(filename="a", mode="octet")
    request /= scapy_tftp.TFTP_Options(options=[scapy_tftp.TFTP_Option(oname="tsize", value="0")])
    assert decode(bytes(request)) == ReadRequest("a", "octet", {"tsize": "0"})
    assert decode(bytes(scapy_tftp.TFTP() / scapy_tftp.TFTP_ACK(block=7))) == Ack(7)


def test_modes_and_options_are_read_in_any_case() -> None:
    asked = decode(b"\0\1File\0OcTeT\0BlkSize\x001428\0")
    assert asked == ReadRequest("File", "octet", {"blksize": "1428"})


@pytest.mark.parametrize("tail", [b"blksize", b"tsize\x00", b"tsize\x000", b"\0\0\0\0", b"\0"])
def test_rubbish_behind_a_request_does_not_spoil_it(tail: bytes) -> None:
    read = decode(b"\0\1name\0octet\0blksize\x001428\0" + tail)
    assert read == ReadRequest("name", "octet", {"blksize": "1428"})


def test_an_option_given_twice_counts_once() -> None:
    assert decode(b"\0\1a\0octet\0tsize\x000\0TSIZE\x009\0") == ReadRequest("a", "octet", {"tsize": "0"})


@pytest.mark.parametrize(
    "body",
    [
        b"name",
        b"name\0",
        b"name\0octet",
        b"\0octet\0",
        b"two\nlines\0octet\0",
        b"\x1b[31mred\0octet\0",
        b"\xff\xfe\0octet\0",
        b"n" * packet.MAX_REQUEST + b"\0octet\0",
    ],
)
def test_a_request_without_a_usable_name_and_mode_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedPacket):
        decode(b"\0\1" + body)


def test_an_error_may_lack_its_text_or_the_end_of_it() -> None:
    assert decode(b"\0\5\0\x08") == Error(8, "")
    assert decode(b"\0\5\0\x08User aborted") == Error(8, "User aborted")


def test_a_text_with_a_nul_is_not_sent() -> None:
    with pytest.raises(ValueError, match="NUL"):
        encode(Error(0, "two\0texts"))
