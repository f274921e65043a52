"""The zone: what exists, what exists with nothing of that type, what does not exist, what is not ours."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address

import pytest
from dnslib import QTYPE, DNSLabel

from pxeboot.dns.zone import NEGATIVE_TTL_SECONDS, Outcome, Published, make_zone

ZONE = make_zone(
    "boot.example",
    IPv4Address("10.77.0.1"),
    {
        "web1": (IPv4Address("10.77.0.100"), IPv6Address("2001:db8::5054:ff:fe77:1")),
        "web2": (IPv4Address("10.77.0.101"),),
        "www": (IPv4Address("10.77.0.10"),),
        "www6": (IPv6Address("2001:db8:1::80"),),
    },
    (Published("www", "tcp", 80), Published("www6", "tcp", 443), Published("dns", "udp", 53)),
    (IPv4Network("10.77.0.0/24"), IPv4Network("10.78.0.64/26")),
    serial=7,
)


def ask(name: str, rtype: str = "A") -> tuple[Outcome, list[str], list[str]]:
    answer = ZONE.answer(DNSLabel(name), getattr(QTYPE, rtype))
    return (
        answer.outcome,
        [str(rr.rdata) for rr in answer.records],
        [str(rr.rname) for rr in answer.authority],
    )


@pytest.mark.parametrize(
    ("name", "rtype", "data"),
    [
        ("web1.boot.example", "A", "10.77.0.100"),
        ("WEB1.Boot.Example.", "A", "10.77.0.100"),
        ("pxeboot.boot.example", "A", "10.77.0.1"),
        ("boot.example", "NS", "pxeboot.boot.example."),
        ("100.0.77.10.in-addr.arpa", "PTR", "web1.boot.example."),
        ("1.0.77.10.in-addr.arpa", "PTR", "pxeboot.boot.example."),
        ("0.77.10.in-addr.arpa", "NS", "pxeboot.boot.example."),
        ("web1.boot.example", "ANY", "10.77.0.100"),
        ("web1.boot.example", "AAAA", "2001:db8::5054:ff:fe77:1"),
        ("www.boot.example", "A", "10.77.0.10"),
        ("www6.boot.example", "AAAA", "2001:db8:1::80"),
        ("_www._tcp.boot.example", "SRV", "0 100 80 www.boot.example."),
        ("_WWW6._TCP.boot.example", "SRV", "0 100 443 www6.boot.example."),
        ("_www._tcp.boot.example", "ANY", "0 100 80 www.boot.example."),
        ("10.0.77.10.in-addr.arpa", "PTR", "www.boot.example."),
    ],
)
def test_what_exists_is_answered(name: str, rtype: str, data: str) -> None:
    assert ask(name, rtype) == (Outcome.FOUND, [data], [])


@pytest.mark.parametrize(
    ("name", "rtype", "apex"),
    [
        ("web2.boot.example", "AAAA", "boot.example."),
        ("www6.boot.example", "A", "boot.example."),
        ("_www._tcp.boot.example", "A", "boot.example."),
        ("_tcp.boot.example", "A", "boot.example."),  # names are below it: it exists (RFC 8020)
        ("_udp.boot.example", "ANY", "boot.example."),
        ("boot.example", "A", "boot.example."),
        ("100.0.77.10.in-addr.arpa", "A", "0.77.10.in-addr.arpa."),
    ],
)
def test_a_name_without_that_type_is_no_data_with_the_soa(name: str, rtype: str, apex: str) -> None:
    assert ask(name, rtype) == (Outcome.FOUND, [], [apex])


@pytest.mark.parametrize(
    ("name", "apex"),
    [
        ("web3.boot.example", "boot.example."),
        ("_www._udp.boot.example", "boot.example."),
        ("_sctp.boot.example", "boot.example."),
        ("a.web1.boot.example", "boot.example."),
        ("99.0.77.10.in-addr.arpa", "0.77.10.in-addr.arpa."),
        ("70.0.78.10.in-addr.arpa", "0.78.10.in-addr.arpa."),
    ],
)
def test_a_name_that_is_not_there_is_denied_with_the_soa(name: str, apex: str) -> None:
    assert ask(name) == (Outcome.NO_SUCH_NAME, [], [apex])


@pytest.mark.parametrize(
    "name",
    [
        "example.",
        "debian.example",
        "notboot.example",
        "1.0.79.10.in-addr.arpa",
        "1.0.78.10.in-addr.arpa",  # in the /24, but not in our part of it
        "x.0.77.10.in-addr.arpa",
        "in-addr.arpa",
        ".",
    ],
)
def test_the_rest_is_not_ours(name: str) -> None:
    assert ask(name, "PTR") == (Outcome.NOT_OURS, [], [])


def test_the_soa_has_the_serial_and_the_negative_time() -> None:
    answer = ZONE.answer(DNSLabel("web3.boot.example"), QTYPE.A)
    (soa,) = answer.authority
    assert (soa.rdata.times[0], soa.rdata.times[4], soa.ttl) == (
        7,
        NEGATIVE_TTL_SECONDS,
        NEGATIVE_TTL_SECONDS,
    )


def test_who_asks_for_a_service_is_told_its_address_too() -> None:
    answer = ZONE.answer(DNSLabel("_www._tcp.boot.example"), QTYPE.SRV)
    assert [(str(rr.rname), str(rr.rdata)) for rr in answer.additional] == [
        ("www.boot.example.", "10.77.0.10")
    ]
    answer = ZONE.answer(DNSLabel("boot.example"), QTYPE.NS)
    assert [str(rr.rname) for rr in answer.additional] == ["pxeboot.boot.example."]


def test_one_name_may_have_addresses_of_both_kinds() -> None:
    (answer,) = ZONE.answer(DNSLabel("web1.boot.example"), QTYPE.ANY).records
    assert str(answer.rdata) == "10.77.0.100"  # one type is enough (RFC 8482)
