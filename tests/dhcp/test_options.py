"""Options: splitting the area, joining parts, and every row both ways."""

import contextlib
from ipaddress import IPv4Address, IPv4Network
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.dns import DNSQR

from pxeboot.dhcp import options, packet
from pxeboot.dhcp.options import OPTIONS, MessageType, Option, decode_options, encode_options, read
from pxeboot.dhcp.values import Route
from pxeboot.errors import MalformedPacket

addresses = st.ip_addresses(v=4)
text = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=60)
uint32 = st.integers(0, 2**32 - 1)

labels = st.text("abcdefghijklmnopqrstuvwxyz-0123456789", min_size=1, max_size=63)
domains = st.lists(labels, min_size=1, max_size=3).map(".".join)
routes = st.builds(
    lambda address, prefix, router: Route(IPv4Network((int(address), prefix), strict=False), router),
    addresses,
    st.integers(0, 32),
    addresses,
)

VALUES: dict[str, st.SearchStrategy[object]] = {
    "subnet-mask": addresses,
    "router": st.lists(addresses, min_size=1, max_size=5).map(tuple),
    "domain-name-server": st.lists(addresses, min_size=1, max_size=5).map(tuple),
    "host-name": text,
    "domain-name": text,
    "broadcast-address": addresses,
    "ntp-servers": st.lists(addresses, min_size=1, max_size=5).map(tuple),
    "vendor-specific": st.dictionaries(st.integers(1, 254), st.binary(max_size=20), max_size=5),
    "requested-address": addresses,
    "lease-time": uint32,
    "overload": st.integers(1, 3),
    "message-type": st.sampled_from(MessageType),
    "server-identifier": addresses,
    "parameter-request-list": st.binary(max_size=30),
    "message": text,
    "max-message-size": st.integers(0, 65535),
    "renewal-time": uint32,
    "rebinding-time": uint32,
    "vendor-class": text,
    "client-identifier": st.binary(max_size=30),
    "tftp-server-name": text,
    "bootfile-name": text,
    "user-class": st.lists(text, min_size=1, max_size=3).map(tuple),
    "relay-agent-information": st.binary(max_size=30),
    "client-architecture": st.lists(st.integers(0, 65535), min_size=1, max_size=4).map(tuple),
    "client-machine-identifier": st.uuids(),
    "subnet-selection": addresses,
    "domain-search": st.lists(domains, min_size=1, max_size=5).map(tuple),
    "classless-static-routes": st.lists(routes, min_size=1, max_size=5).map(tuple),
    "etherboot": st.dictionaries(st.integers(1, 254), st.binary(max_size=20), max_size=5),
}


@pytest.mark.parametrize("option", OPTIONS.values(), ids=lambda option: option.name)
@given(data=st.data())
def test_every_value_survives_its_row(option: Option, data: st.DataObject) -> None:
    value = data.draw(VALUES[option.name])
    assert option.decode(option.encode(value)) == value


@pytest.mark.parametrize("option", OPTIONS.values(), ids=lambda option: option.name)
@given(raw=st.binary(max_size=40))
def test_any_bytes_of_an_option_are_read_or_refused(option: Option, raw: bytes) -> None:
    with contextlib.suppress(MalformedPacket):
        read(option, {option.code: raw})


SHORT_OR_LONG = st.binary(max_size=40) | st.binary(min_size=250, max_size=700)
"""Left alone, hypothesis seldom makes a value so long that it comes in parts."""


@given(st.binary(max_size=300))
def test_any_area_is_split_or_refused(area: bytes) -> None:
    with contextlib.suppress(MalformedPacket):
        decode_options(area)


@given(st.dictionaries(st.integers(1, 254), SHORT_OR_LONG, max_size=6))
def test_any_options_survive_also_those_in_parts(given_options: dict[int, bytes]) -> None:
    assert decode_options(encode_options(given_options) + b"\xff") == given_options


def test_a_pad_has_no_length() -> None:
    assert decode_options(b"\x00\x00\x35\x01\x01\x00\xff") == {53: b"\x01"}


def test_nothing_counts_after_the_end() -> None:
    assert decode_options(b"\x35\x01\x01\xff\x36\x01") == {53: b"\x01"}


def test_a_missing_end_is_forgiven() -> None:
    assert decode_options(b"\x35\x01\x01") == {53: b"\x01"}


def test_repeated_options_are_one() -> None:
    assert decode_options(b"\x43\x02ab\x35\x01\x01\x43\x01c") == {67: b"abc", 53: b"\x01"}


@pytest.mark.parametrize("area", [b"\x35", b"\x35\x02\x01", b"\x00\x43\xff"])
def test_a_length_past_the_end_is_refused(area: bytes) -> None:
    with pytest.raises(MalformedPacket, match="runs past the end"):
        decode_options(area)


def test_user_class_is_read_both_ways() -> None:
    assert read(options.USER_CLASS, {77: b"iPXE"}) == ("iPXE",)
    assert read(options.USER_CLASS, {77: b"\x04iPXE\x02ab"}) == ("iPXE", "ab")


def test_the_uuid_is_in_the_byte_order_of_smbios() -> None:
    raw = bytes.fromhex("00" + "33221100554477668899aabbccddeeff")
    assert read(options.CLIENT_MACHINE_IDENTIFIER, {97: raw}) == UUID("00112233-4455-6677-8899-aabbccddeeff")


def test_text_may_end_in_nul() -> None:
    assert read(options.VENDOR_CLASS, {60: b"PXEClient\0"}) == "PXEClient"


def test_what_is_not_there_is_none() -> None:
    assert read(options.ROUTER, {}) is None
    assert read(options.ROUTER, {3: IPv4Address("10.0.0.1").packed}) == (IPv4Address("10.0.0.1"),)


def test_domain_names_may_be_compressed() -> None:
    raw = bytes.fromhex("03656e67056170706c6503636f6d00096d61726b6574696e67c004")  # RFC 3397 §2, its example
    assert read(options.DOMAIN_SEARCH, {119: raw}) == ("eng.apple.com", "marketing.apple.com")


@pytest.mark.parametrize(
    "raw", [b"\xc0\x00", b"\x01a\xc0\x00", b"\x01a\xc0\x05\x00", b"\x40a\x00", b"\x05ab"]
)
def test_a_domain_name_that_never_ends_is_refused(raw: bytes) -> None:
    with pytest.raises(MalformedPacket):
        read(options.DOMAIN_SEARCH, {119: raw})


def test_routes_are_as_short_as_rfc_3442_has_them() -> None:
    rows = (
        Route(IPv4Network("0.0.0.0/0"), IPv4Address("10.0.0.1")),
        Route(IPv4Network("10.229.0.128/25"), IPv4Address("10.229.0.1")),
    )
    raw = bytes.fromhex("00 0a000001 19 0ae50080 0ae50001")
    assert options.CLASSLESS_STATIC_ROUTES.encode(rows) == raw


@given(
    st.lists(addresses, min_size=1, max_size=4).map(tuple),
    st.lists(routes, min_size=1, max_size=4).map(tuple),
)
def test_scapy_reads_our_servers_and_routes(
    servers: tuple[IPv4Address, ...], rows: tuple[Route, ...]
) -> None:
    written = {42: options.NTP_SERVERS.encode(servers), 121: options.CLASSLESS_STATIC_ROUTES.encode(rows)}
    data = packet.encode(packet.Packet(2, 1, b"abcdef", options=written))
    told = {row[0]: row[1:] for row in BOOTP(data)[DHCP].options if isinstance(row, tuple)}
    assert told["NTP_server"] == tuple(str(server) for server in servers)
    assert told["classless_static_routes"] == ([f"{row.destination}:{row.router}" for row in rows],)


@given(st.lists(routes, min_size=1, max_size=4).map(tuple))
def test_we_read_the_routes_of_scapy(rows: tuple[Route, ...]) -> None:
    texts = [f"{row.destination}:{row.router}" for row in rows]
    data = bytes(BOOTP(op=2) / DHCP(options=[("classless_static_routes", texts), "end"]))
    assert read(options.CLASSLESS_STATIC_ROUTES, packet.decode(data).options) == rows


@given(domains)
def test_scapy_writes_domain_names_as_we_do(name: str) -> None:
    assert options.DOMAIN_SEARCH.encode((name,)) == bytes(DNSQR(qname=name))[:-4]
