"""The zone: what exists, what exists with nothing of that type, what does not exist, what is not ours."""

from ipaddress import IPv4Address, IPv4Network

import pytest
from dnslib import QTYPE, DNSLabel

from pxeboot.dns.zone import NEGATIVE_TTL_SECONDS, Outcome, make_zone

ZONE = make_zone(
    "boot.example",
    IPv4Address("10.77.0.1"),
    {"web1": IPv4Address("10.77.0.100"), "web2": IPv4Address("10.77.0.101")},
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
    ],
)
def test_what_exists_is_answered(name: str, rtype: str, data: str) -> None:
    assert ask(name, rtype) == (Outcome.FOUND, [data], [])


@pytest.mark.parametrize(
    ("name", "rtype", "apex"),
    [
        ("web1.boot.example", "AAAA", "boot.example."),
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
