"""From a query's bytes to a response's: everything about DNS messages that is not the zone's. Pure.

Source: RFC 1035 §4, RFC 6891 (EDNS), RFC 7766 (TCP).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from dnslib import CLASS, EDNS0, OPCODE, QR, QTYPE, RCODE, RR, DNSHeader, DNSQuestion, DNSRecord

from pxeboot.dns.zone import Outcome, Zone
from pxeboot.errors import MalformedPacket

PLAIN_BYTES = 512
"""What every client takes over UDP (RFC 1035 §4.2.1)."""
OUR_BYTES = 1232
"""What we offer and send at most over UDP: no fragments on any usual path."""
HEADER_BYTES = 12
BAD_VERSION = 16
_CLASS_IN = CLASS.IN
_TRANSFERS = (QTYPE.AXFR, QTYPE.IXFR)


@dataclass(frozen=True, slots=True)
class Query:
    """A query that was understood.

    `size`: bytes of response the client takes, None over TCP; `recursive`: whether we ask others, which every
    response says (RA).
    """

    record: DNSRecord
    size: int | None
    recursive: bool

    @property
    def question(self) -> DNSQuestion:
        """The one question."""
        return self.record.q


def decode(data: bytes) -> DNSRecord:
    """Read a message. Raises MalformedPacket, and nothing else, for any bytes."""
    if len(data) < HEADER_BYTES:
        raise MalformedPacket(f"{len(data)} bytes are too few for DNS")
    try:
        return DNSRecord.parse(data)
    except Exception as error:  # dnslib lets through whatever its readers raise
        raise MalformedPacket(f"no DNS message: {error}") from error


def decode_response(data: bytes, question: DNSQuestion, identity: int) -> DNSRecord:
    """Read what answers this question with this id (RFC 5452 §9.1). Raises MalformedPacket."""
    record = decode(data)
    same = len(record.questions) == 1 and (record.q.qname, record.q.qtype) == (question.qname, question.qtype)
    if record.header.get_qr() != QR.RESPONSE or record.header.id != identity or not same:
        raise MalformedPacket("not the answer to our question")
    return record


def encode_question(question: DNSQuestion, identity: int, size: int) -> bytes:
    """A recursive query; `size` is what we take over UDP, bytes."""
    record = DNSRecord(DNSHeader(id=identity, rd=1), questions=[question], ar=[EDNS0(udp_len=size)])
    return bytes(record.pack())


def respond(data: bytes, zone: Zone, *, tcp: bool, recursive: bool) -> bytes | Query:
    """Answer what is ours or cannot be answered at all; give back the query that others must answer.

    Raises MalformedPacket where no response is due: what is no query, or too broken to have an id.
    """
    if len(data) < HEADER_BYTES or data[2] & 0x80:
        raise MalformedPacket("too short for a query, or a response, which nobody asked for")
    try:
        record = decode(data)
    except MalformedPacket:
        return _bare_error(data, RCODE.FORMERR)
    if record.header.opcode != OPCODE.QUERY:
        return _bare_error(data, RCODE.NOTIMP)
    if len(record.questions) != 1:
        return _bare_error(data, RCODE.FORMERR)
    optional = _options(record)
    return _answer(Query(record, None if tcp else _size(optional), recursive), optional, zone)


def _answer(query: Query, optional: RR | None, zone: Zone) -> bytes | Query:
    if optional is not None and _version(optional) != 0:
        return finish(query, [], [], BAD_VERSION)
    question = query.question
    if question.qclass != _CLASS_IN or question.qtype in _TRANSFERS:
        return finish(query, [], [], RCODE.REFUSED)
    answer = zone.answer(question.qname, question.qtype)
    if answer.outcome is Outcome.NOT_OURS:
        return query
    records, authority, additional = map(list, (answer.records, answer.authority, answer.additional))
    return finish(query, records, authority, answer.outcome.value, additional, ours=True)


def finish(
    query: Query,
    answers: list[RR],
    authority: list[RR],
    rcode: int,
    additional: Sequence[RR] = (),
    *,
    ours: bool = False,
) -> bytes:
    """The response as bytes; what does not fit over UDP is left out and TC set, but for what is only
    additional (RFC 2181 §9)."""
    asked = query.record.header
    header = DNSHeader(id=asked.id, qr=1, aa=ours, rd=asked.rd, ra=query.recursive, rcode=rcode & 15)
    response = DNSRecord(header, questions=query.record.questions, rr=answers, auth=authority)
    if _options(query.record) is not None:
        response.add_ar(EDNS0(udp_len=OUR_BYTES, ext_rcode=rcode >> 4))
    packed = bytes(response.pack())
    if additional:
        response.ar = [*additional, *response.ar]
        whole = bytes(response.pack())
        if query.size is None or len(whole) <= query.size:
            return whole
        response.ar = response.ar[len(additional) :]
    if query.size is not None and len(packed) > query.size:
        response.rr, response.auth = [], []
        response.header.tc = 1
        packed = bytes(response.pack())
    return packed


def _bare_error(data: bytes, rcode: int) -> bytes:
    """A header alone: id, opcode and RD of the query, and what is wrong with it."""
    flags = 0x8000 | (data[2] & 0x79) << 8 | rcode
    return data[:2] + flags.to_bytes(2, "big") + bytes(8)


def _options(record: DNSRecord) -> RR | None:
    return next((extra for extra in record.ar if extra.rtype == QTYPE.OPT), None)


def _size(optional: RR | None) -> int:
    if optional is None:
        return PLAIN_BYTES
    return max(PLAIN_BYTES, min(int(optional.rclass), OUR_BYTES))


def _version(optional: RR) -> int:
    return int(optional.ttl) >> 16 & 0xFF
