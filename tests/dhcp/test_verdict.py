"""Who answers when: what a REQUEST asks, and what becomes of it."""

from ipaddress import IPv4Address
from pathlib import Path

import pytest

from pxeboot.dhcp import packet
from pxeboot.dhcp.packet import Packet
from pxeboot.dhcp.verdict import Asks, Standing, Verdict, classify, judge

DATA = Path(__file__).parent.parent / "data"
SERVER, ADDRESS, RELAY = (IPv4Address(f"10.77.0.{n}") for n in (1, 100, 254))
TRY, NAK, SILENCE = Verdict.TRY, Verdict.NAK, Verdict.SILENCE


@pytest.mark.parametrize(
    ("codes", "ciaddr", "expected"),
    [
        ({54: SERVER, 50: ADDRESS}, None, (Asks.SELECTING, ADDRESS)),
        ({54: RELAY, 50: ADDRESS}, None, (Asks.ELSEWHERE, IPv4Address(0))),
        ({50: ADDRESS}, None, (Asks.REBOOTING, ADDRESS)),
        ({}, ADDRESS, (Asks.RENEWING, ADDRESS)),
        ({54: SERVER}, ADDRESS, (Asks.SELECTING, ADDRESS)),
        ({}, None, (Asks.UNCLEAR, IPv4Address(0))),
        ({50: IPv4Address(0)}, None, (Asks.UNCLEAR, IPv4Address(0))),
        ({54: SERVER}, None, (Asks.UNCLEAR, IPv4Address(0))),
    ],
)
def test_a_request_is_told_by_what_it_names(
    codes: dict[int, IPv4Address], ciaddr: IPv4Address | None, expected: tuple[Asks, IPv4Address]
) -> None:
    request = Packet(
        1,
        1,
        b"abcdef",
        ciaddr=ciaddr or IPv4Address(0),
        options={code: address.packed for code, address in codes.items()},
    )
    assert classify(request, SERVER) == expected


@pytest.mark.parametrize("name", ["ipxe-bios", "ipxe-efi", "ovmf", "ipxe-snponly", "udhcpc"])
def test_real_requests_are_understood(name: str) -> None:
    asks, address = classify(packet.decode((DATA / f"request-{name}.bin").read_bytes()), SERVER)
    assert (asks, address) == (Asks.SELECTING, ADDRESS)


def standing(text: str) -> Standing:
    words = text.split()
    return Standing(
        here="here" in words,
        known="known" in words,
        ours="ours" in words,
        authoritative="authoritative" in words,
        outdated="outdated" in words,
    )


@pytest.mark.parametrize(
    ("asks", "facts", "verdict"),
    [
        # It took our offer: it is ours to answer, whatever we have forgotten since.
        (Asks.SELECTING, "here", TRY),
        (Asks.SELECTING, "", NAK),
        (Asks.SELECTING, "here known outdated", TRY),
        # It remembers an address: without a record of ours another server may have one.
        (Asks.REBOOTING, "here", SILENCE),
        (Asks.REBOOTING, "here ours", SILENCE),
        (Asks.REBOOTING, "here known", TRY),
        (Asks.REBOOTING, "here authoritative", TRY),
        # It remembers an address of another network: only who knows that it is wrong says so.
        (Asks.REBOOTING, "", SILENCE),
        (Asks.REBOOTING, "known", NAK),
        (Asks.REBOOTING, "ours", NAK),
        (Asks.REBOOTING, "authoritative", NAK),
        # It renews or rebinds: an address of our pools has come from us.
        (Asks.RENEWING, "here", SILENCE),
        (Asks.RENEWING, "here ours", TRY),
        (Asks.RENEWING, "here known", TRY),
        (Asks.RENEWING, "here authoritative", TRY),
        (Asks.RENEWING, "", SILENCE),
        (Asks.RENEWING, "known", NAK),
        (Asks.RENEWING, "ours", NAK),
        (Asks.RENEWING, "authoritative", NAK),
        # It has been named: its temporary address is over.
        (Asks.REBOOTING, "here known outdated", NAK),
        (Asks.RENEWING, "here known outdated", NAK),
    ],
)
def test_who_is_answered_and_who_is_contradicted(asks: Asks, facts: str, verdict: Verdict) -> None:
    assert judge(asks, standing(facts)) is verdict
