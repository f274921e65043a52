"""A filled form is the reply that the responder would have written, byte for byte."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

from hypothesis import given
from hypothesis import strategies as st

from pxeboot.dhcp import responder
from pxeboot.dhcp.form import MAX_FORMS, Filled, Forms
from pxeboot.dhcp.options import MessageType
from pxeboot.dhcp.packet import BOOTREQUEST, Packet
from pxeboot.dhcp.responder import Reply
from pxeboot.dhcp.terms import Terms
from pxeboot.pxe.client import identify
from pxeboot.pxe.policy import Decision

SERVER = IPv4Address("10.77.0.1")
PLAIN = Terms(SERVER, IPv4Network("10.77.0.0/24"), SERVER, (SERVER,), 3600)
RICH = replace(PLAIN, options={12: b"everybody", 42: bytes(200), 224: bytes(180)}, relay_port=1067)
NOTHING = Decision("", "test")

addresses = st.integers(0, 2**32 - 1).map(IPv4Address)
somewhere = st.one_of(st.just(IPv4Address(0)), addresses)
# Few lengths and values, so that many requests are of one kind; 255 and more because options end there.
sizes = st.sampled_from([0, 1, 7, 17, 255, 256, 300])
values = sizes.flatmap(lambda size: st.binary(min_size=size, max_size=size))
asked = st.fixed_dictionaries(
    {},
    optional={
        12: st.sampled_from([b"a", b"b"]),
        50: st.binary(min_size=4, max_size=4),
        55: st.sampled_from([b"\x01\x03\x06\x0c", b"\x0c\x1c\x03\x2a", b""]),
        57: st.sampled_from([b"\x02\x40", b"\x05\xdc", b"?"]),
        60: st.sampled_from([b"udhcp", b"PXEClient"]),
        61: values,
        82: values,
        93: st.sampled_from([b"\0\0", b"\0\x07"]),
        97: values,
        118: st.binary(min_size=4, max_size=4),
    },
)
requests = st.builds(
    Packet,
    op=st.just(BOOTREQUEST),
    xid=st.integers(0, 2**32 - 1),
    chaddr=st.binary(min_size=6, max_size=6),
    hops=st.integers(0, 16),
    secs=st.integers(0, 0xFFFF),
    flags=st.sampled_from([0, 0x8000, 0xFFFF]),
    ciaddr=somewhere,
    giaddr=somewhere,
    options=asked,
)
names = st.sampled_from(["web1", "web2", "node-525400770001", ""])


def both(
    forms: Forms, kind: MessageType, request: Packet, terms: Terms, address: IPv4Address, name: str
) -> tuple[Reply | Filled, Reply]:
    """As by form, and as written."""
    client = identify(request)
    write = responder.offer if kind is MessageType.OFFER else responder.ack
    written = write(request, client, terms, address, NOTHING, name)
    return forms.grant(kind, request, client, terms, address, NOTHING, name), written


def variants(one: Packet, other: Packet) -> list[Packet]:
    """The first request, and after it such as differ from it in one thing, which they have from the other."""
    found = [one]
    for code in one.options.keys() | other.options.keys():
        kept = {key: value for key, value in one.options.items() if key != code}
        taken = {code: other.options[code]} if code in other.options else {}
        found.append(replace(one, options={**kept, **taken}))
    for name in ("xid", "chaddr", "hops", "secs", "flags", "ciaddr", "giaddr"):
        found.append(replace(one, **{name: getattr(other, name)}))
    return found


@given(requests, requests, addresses, names)
def test_any_requests_are_answered_by_form_as_they_would_be_without(
    one: Packet, other: Packet, address: IPv4Address, name: str
) -> None:
    forms = Forms()
    for asks in variants(one, other):
        for kind in (MessageType.OFFER, MessageType.ACK):
            for terms in (PLAIN, RICH):
                for called in (name, "web1"):
                    got, written = both(forms, kind, asks, terms, address, called)
                    assert got.payload == written.payload
                    assert got.destination == written.destination


def request(number: int) -> Packet:
    mac = number.to_bytes(6, "big")
    return Packet(BOOTREQUEST, number, mac, options={53: b"\1", 55: b"\x01\x0c", 61: b"\x01" + mac})


def test_the_second_machine_of_a_kind_gets_a_filled_form() -> None:
    forms = Forms()
    for number in (1, 2):
        got, written = both(
            forms, MessageType.OFFER, request(number), PLAIN, SERVER + number, f"node-{number}"
        )
        assert got.payload == written.payload
        assert isinstance(got, Filled) == (number == 2)


def test_what_boots_is_written_each_time() -> None:
    forms, boots = Forms(), Decision("undionly.kpxe", "test")
    for number in (1, 2):
        asks = request(number)
        got = forms.grant(MessageType.OFFER, asks, identify(asks), PLAIN, SERVER, boots, "web")
        assert isinstance(got, Reply)


def test_terms_that_follow_others_are_not_taken_for_them() -> None:
    forms = Forms()
    for seconds in range(600, 700):  # each gone before the next is made, as after a change of the file
        terms = replace(PLAIN, lease_seconds=seconds)
        got, written = both(forms, MessageType.ACK, request(1), terms, SERVER, "web")
        assert got.payload == written.payload


def test_forms_are_bounded() -> None:
    forms = Forms()
    for number in range(MAX_FORMS + 10):
        asks = replace(request(1), options={53: b"\1", 55: number.to_bytes(2, "big")})
        both(forms, MessageType.OFFER, asks, PLAIN, SERVER, "web")
    assert len(forms._forms) <= MAX_FORMS
