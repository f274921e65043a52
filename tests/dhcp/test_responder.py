"""Replies: what stands in them, how large they are, and where they go."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxeboot.dhcp import options, packet, responder
from pxeboot.dhcp.options import MessageType, read
from pxeboot.dhcp.packet import Packet
from pxeboot.dhcp.responder import Broadcast, Direct, Unicast
from pxeboot.dhcp.terms import Terms
from pxeboot.dhcp.verdict import Asks, classify
from pxeboot.pxe.client import identify
from pxeboot.pxe.policy import Decision

DATA = Path(__file__).parent.parent / "data"
SERVER, ADDRESS, RELAY = (IPv4Address(f"10.77.0.{n}") for n in (1, 100, 254))
TERMS = Terms(SERVER, IPv4Network("10.77.0.0/24"), SERVER, (SERVER,), 3600)
SCRIPT = Decision("http://10.77.0.1/ipxe/52:54:00:77:00:01", "test")
LOADER = Decision("undionly.kpxe", "test")
NOTHING = Decision("", "test")


def captured(name: str) -> Packet:
    return packet.decode((DATA / f"{name}.bin").read_bytes())


def offer(request: Packet, decision: Decision = NOTHING, name: str = "web1") -> responder.Reply:
    return responder.offer(request, identify(request), TERMS, ADDRESS, decision, name)


DISCOVER = captured("discover-udhcpc")


def test_an_offer_gives_address_times_and_network() -> None:
    reply = offer(DISCOVER).packet
    assert reply.yiaddr == ADDRESS
    assert read(options.MESSAGE_TYPE, reply.options) is MessageType.OFFER
    assert read(options.SERVER_IDENTIFIER, reply.options) == SERVER
    times = [
        read(option, reply.options)
        for option in (options.LEASE_TIME, options.RENEWAL_TIME, options.REBINDING_TIME)
    ]
    assert times == [3600, 1800, 3150]
    assert read(options.SUBNET_MASK, reply.options) == IPv4Address("255.255.255.0")
    assert read(options.ROUTER, reply.options) == (SERVER,)
    assert read(options.HOST_NAME, reply.options) == "web1"


def test_what_identifies_the_request_is_echoed() -> None:
    request = replace(captured("discover-ipxe-bios"), giaddr=RELAY, flags=0x8000)
    request.options[82] = b"\x01\x04eth0"
    reply = offer(request, SCRIPT).packet
    assert (reply.xid, reply.flags, reply.giaddr, reply.chaddr) == (
        request.xid,
        0x8000,
        RELAY,
        request.chaddr,
    )
    assert {code: reply.options[code] for code in (61, 82, 97)} == {
        code: request.options[code] for code in (61, 82, 97)
    }
    assert list(reply.options)[-1] == 82


def test_a_boot_is_told_in_fields_and_options() -> None:
    reply = offer(captured("discover-ovmf"), LOADER).packet
    assert (reply.siaddr, reply.sname, reply.file) == (SERVER, b"10.77.0.1", b"undionly.kpxe")
    assert reply.options[67] == b"undionly.kpxe\0"
    assert reply.options[66] == b"10.77.0.1\0"


def test_pxe_firmware_is_told_to_load_without_a_menu() -> None:
    reply = offer(captured("discover-ovmf"), LOADER).packet
    assert reply.options[60] == b"PXEClient"
    assert read(options.VENDOR_SPECIFIC, reply.options) == {6: b"\x08"}


def test_who_did_not_say_pxeclient_does_not_hear_it() -> None:
    reply = offer(DISCOVER, NOTHING).packet
    assert not {60, 43, 66, 67} & set(reply.options)
    assert (reply.siaddr, reply.file) == (IPv4Address(0), b"")


def test_ipxe_is_spared_its_wait_for_a_proxy() -> None:
    assert read(options.ETHERBOOT, offer(captured("discover-ipxe-bios"), SCRIPT).packet.options) == {
        176: b"\1"
    }
    assert 175 not in offer(captured("discover-ovmf"), LOADER).packet.options


def test_a_name_too_long_for_file_stands_in_67_only() -> None:
    url = "http://10.77.0.1/" + "x" * 150
    reply = offer(captured("discover-ipxe-bios"), Decision(url, "test")).packet
    assert reply.file == b""
    assert reply.options[67] == url.encode() + b"\0"


def test_a_reply_is_never_larger_than_the_client_takes() -> None:
    request = captured("discover-ovmf")
    request.options[57] = b"\x02\x40"
    request.options[82] = b"\x01\xd0" + b"r" * 208
    reply = offer(request, LOADER, name="n" * 63)
    assert len(packet.encode(reply.packet)) <= 576 - 28
    assert {53, 54, 51, 1, 82} <= set(reply.packet.options)
    assert 12 not in reply.packet.options


@given(st.integers(0, 65535), st.binary(max_size=200), st.text("abc", max_size=63))
def test_any_reply_fits_and_is_no_shorter_than_bootp(size: int, relay: bytes, name: str) -> None:
    request = captured("discover-ipxe-efi")
    request.options[57] = size.to_bytes(2, "big")
    if relay:
        request.options[82] = relay
    length = len(packet.encode(offer(request, SCRIPT, name).packet))
    assert 300 <= length <= max(576, size) - 28


def test_who_asks_for_broadcast_gets_it_and_the_flag_back() -> None:
    reply = offer(replace(DISCOVER, flags=0x8000))
    assert (reply.destination, reply.packet.flags) == (Broadcast(), 0x8000)


def test_who_has_no_address_yet_is_reached_by_hardware_address() -> None:
    assert offer(replace(DISCOVER, flags=0)).destination == Direct(DISCOVER.mac, ADDRESS)


def test_who_has_an_address_is_reached_there() -> None:
    assert offer(replace(DISCOVER, ciaddr=ADDRESS, flags=0x8000)).destination == Unicast(ADDRESS, 68)


def test_a_relay_gets_the_reply_whatever_the_flags() -> None:
    assert offer(replace(DISCOVER, giaddr=RELAY, flags=0x8000)).destination == Unicast(RELAY, 67)


def test_a_nak_is_broadcast_and_gives_nothing() -> None:
    reply = responder.nak(replace(DISCOVER, ciaddr=ADDRESS), TERMS, "not yours")
    assert reply.destination == Broadcast()
    assert (reply.packet.yiaddr, reply.packet.ciaddr) == (IPv4Address(0), IPv4Address(0))
    assert set(reply.packet.options) <= {53, 54, 56, 61, 97}


def test_a_nak_through_a_relay_is_to_be_broadcast_there() -> None:
    reply = responder.nak(replace(DISCOVER, giaddr=RELAY), TERMS, "not yours")
    assert (reply.destination, reply.packet.flags) == (Unicast(RELAY, 67), 0x8000)


def test_inform_is_answered_without_address_and_times() -> None:
    request = replace(DISCOVER, ciaddr=ADDRESS)
    reply = responder.inform_ack(request, identify(request), TERMS, NOTHING, "web1")
    assert (reply.packet.yiaddr, reply.destination) == (IPv4Address(0), Unicast(ADDRESS, 68))
    assert not {51, 58, 59} & set(reply.packet.options)


@pytest.mark.parametrize(
    ("codes", "ciaddr", "expected"),
    [
        ({54: SERVER, 50: ADDRESS}, None, (Asks.SELECTING, ADDRESS)),
        ({54: RELAY, 50: ADDRESS}, None, (Asks.ELSEWHERE, IPv4Address(0))),
        ({50: ADDRESS}, None, (Asks.REBOOTING, ADDRESS)),
        ({}, ADDRESS, (Asks.RENEWING, ADDRESS)),
        ({54: SERVER}, ADDRESS, (Asks.SELECTING, ADDRESS)),
        ({}, None, (Asks.UNCLEAR, IPv4Address(0))),
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
    asks, address = classify(captured(f"request-{name}"), SERVER)
    assert (asks, address) == (Asks.SELECTING, ADDRESS)
