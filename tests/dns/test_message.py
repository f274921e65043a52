"""DNS messages: any bytes, EDNS, truncation, and what is answered with an error."""

import contextlib
from ipaddress import IPv4Address, IPv4Network

import pytest
from dnslib import EDNS0, QTYPE, RCODE, RR, A, DNSHeader, DNSQuestion, DNSRecord
from hypothesis import given
from hypothesis import strategies as st

from pxeboot.dns.message import OUR_BYTES, Query, decode_response, encode_question, finish, respond
from pxeboot.dns.zone import make_zone
from pxeboot.errors import MalformedPacket

ZONE = make_zone(
    "boot.example",
    IPv4Address("10.77.0.1"),
    {"web1": (IPv4Address("10.77.0.100"),)},
    (),
    (IPv4Network("10.77.0.0/24"),),
    serial=7,
)


def asked(name: str = "web1.boot.example", rtype: str = "A", **header: int) -> DNSRecord:
    return DNSRecord(DNSHeader(id=4711, rd=1, **header), questions=[DNSQuestion(name, getattr(QTYPE, rtype))])


def answer(record: DNSRecord, *, tcp: bool = False) -> DNSRecord:
    response = respond(bytes(record.pack()), ZONE, tcp=tcp, recursive=True)
    assert isinstance(response, bytes)
    return DNSRecord.parse(response)


@given(st.binary(max_size=600))
def test_any_bytes_are_answered_passed_on_or_refused(data: bytes) -> None:
    for message in (data, b"\x12\x34\x01\x00\x00\x01\0\0\0\0\0\0" + data):
        with contextlib.suppress(MalformedPacket):
            response = respond(message, ZONE, tcp=False, recursive=True)
            assert isinstance(response, Query) or len(response) >= 12


@given(st.integers(0, 60), st.binary(min_size=1, max_size=4))
def test_any_damaged_query_is_answered_passed_on_or_refused(at: int, damage: bytes) -> None:
    data = bytearray(asked().pack())
    data[at : at + len(damage)] = damage
    with contextlib.suppress(MalformedPacket):
        respond(bytes(data), ZONE, tcp=True, recursive=True)


def test_an_answer_has_the_id_the_question_and_authority() -> None:
    response = answer(asked("WEB1.boot.Example"))
    assert (response.header.id, response.header.aa, response.header.rd) == (4711, 1, 1)
    assert str(response.q.qname) == "WEB1.boot.Example."
    assert str(response.rr[0].rdata) == "10.77.0.100"


def test_a_response_is_not_answered() -> None:
    with pytest.raises(MalformedPacket):
        respond(bytes(asked(qr=1).pack()), ZONE, tcp=False, recursive=True)


@pytest.mark.parametrize(
    ("record", "rcode"),
    [
        (asked(opcode=4), RCODE.NOTIMP),
        (DNSRecord(DNSHeader(id=1)), RCODE.FORMERR),
        (asked(rtype="AXFR"), RCODE.REFUSED),
        (DNSRecord(DNSHeader(id=1), questions=[DNSQuestion("web1.boot.example", QTYPE.A, 3)]), RCODE.REFUSED),
        (asked("web9.boot.example"), RCODE.NXDOMAIN),
    ],
)
def test_what_cannot_be_answered_is_said_so(record: DNSRecord, rcode: int) -> None:
    assert answer(record).header.rcode == rcode


def test_a_name_of_others_is_passed_on() -> None:
    assert isinstance(respond(bytes(asked("debian.example").pack()), ZONE, tcp=False, recursive=True), Query)


def test_edns_is_answered_with_edns_and_only_then() -> None:
    assert answer(asked()).ar == []
    record = asked()
    record.add_ar(EDNS0(udp_len=4096))
    (optional,) = answer(record).ar
    assert (optional.rtype, optional.rclass) == (QTYPE.OPT, OUR_BYTES)


def test_an_edns_version_we_do_not_know_is_refused_with_ours() -> None:
    record = asked()
    record.add_ar(EDNS0(version=1, udp_len=4096))
    response = answer(record)
    assert response.rr == []
    assert int(response.ar[0].ttl) >> 24 == 1  # BADVERS is 16: its upper bits stand there


def test_what_does_not_fit_is_left_out_and_tc_set() -> None:
    records = [RR("big.example", QTYPE.A, ttl=1, rdata=A(f"10.0.0.{n}")) for n in range(100)]
    record = asked("big.example")
    small = DNSRecord.parse(finish(Query(record, 512, True), records, [], RCODE.NOERROR))
    assert (small.header.tc, small.rr) == (1, [])
    whole = DNSRecord.parse(finish(Query(record, None, True), records, [], RCODE.NOERROR))
    assert (whole.header.tc, len(whole.rr)) == (0, 100)


def test_what_is_only_additional_is_left_out_without_a_word() -> None:
    records = [RR("big.example", QTYPE.A, ttl=1, rdata=A(f"10.0.0.{n}")) for n in range(20)]
    record = asked("big.example")
    record.add_ar(EDNS0(udp_len=512))
    told = DNSRecord.parse(finish(Query(record, 512, True), records, [], RCODE.NOERROR, records[:10]))
    assert (told.header.tc, len(told.rr), [rr.rtype for rr in told.ar]) == (0, 20, [QTYPE.OPT])
    whole = DNSRecord.parse(finish(Query(record, None, True), records, [], RCODE.NOERROR, records[:10]))
    assert len(whole.ar) == 11


def test_only_the_answer_to_our_question_is_taken() -> None:
    question = DNSQuestion("debian.example", QTYPE.A)
    query = DNSRecord.parse(encode_question(question, 99, 1232))
    reply = query.reply().pack()
    assert decode_response(reply, question, 99).header.id == 99
    for data, identity in ((reply, 98), (query.pack(), 99)):
        with pytest.raises(MalformedPacket):
            decode_response(data, question, identity)
    with pytest.raises(MalformedPacket):
        decode_response(reply, DNSQuestion("other.example", QTYPE.A), 99)
