"""Replies: what stands in them, how large they are, and where they go."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.dhcp import BOOTP, DHCP

from pxeboot.dhcp import options, packet, responder
from pxeboot.dhcp.options import MessageType, read
from pxeboot.dhcp.packet import Packet
from pxeboot.dhcp.responder import Broadcast, Direct, Unicast
from pxeboot.dhcp.terms import Terms
from pxeboot.dhcp.values import Route
from pxeboot.pxe.client import identify
from pxeboot.pxe.policy import Decision

DATA = Path(__file__).parent.parent / "data"
SERVER, ADDRESS, RELAY = (IPv4Address(f"10.77.0.{n}") for n in (1, 100, 254))
TERMS = Terms(SERVER, IPv4Network("10.77.0.0/24"), SERVER, (SERVER,), 3600)
SCRIPT = Decision("http://10.77.0.1/ipxe/52:54:00:77:00:01", "test")
LOADER = Decision("undionly.kpxe", "test")
NOTHING = Decision("", "test")
SHORT_OR_LONG = st.binary(max_size=40) | st.binary(min_size=250, max_size=700)


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


def test_what_is_echoed_gives_way_when_it_alone_is_too_large_but_for_the_relays() -> None:
    long = {61: b"c" * 400, 82: b"r" * 200, 97: b"u" * 17}
    request = replace(DISCOVER, options=DISCOVER.options | long)
    reply = offer(request)
    assert len(packet.encode(reply.packet)) <= 576 - 28
    assert [code for code in reply.packet.options if code in long] == [82]


def test_a_reply_fits_one_frame_whatever_the_client_says() -> None:
    request = captured("request-ovmf")
    assert request.options[57] == b"\xff\x00"
    filled = replace(TERMS, options={224: b"x" * 1000, 225: b"y" * 1000})
    reply = responder.ack(request, identify(request), filled, ADDRESS, LOADER, "web1")
    assert 224 in reply.packet.options
    assert len(packet.encode(reply.packet)) <= 1472


@given(
    st.integers(0, 65535),
    st.dictionaries(st.sampled_from([61, 82, 97, 118]), SHORT_OR_LONG),
    st.dictionaries(st.integers(1, 254), SHORT_OR_LONG, max_size=8),
    st.none() | st.binary(max_size=20),
    st.text("abc", max_size=63),
    st.sampled_from([NOTHING, LOADER, SCRIPT]),
    st.sampled_from(["discover-ipxe-efi", "discover-ovmf", "discover-udhcpc"]),
)
def test_any_reply_fits_and_is_no_shorter_than_bootp(
    size: int,
    echoed: dict[int, bytes],
    set_by_operator: dict[int, bytes],
    asked: bytes | None,
    name: str,
    decision: Decision,
    capture: str,
) -> None:
    request = captured(capture)
    request.options |= echoed | {57: size.to_bytes(2, "big")}
    request.options.pop(55)
    if asked is not None:
        request.options[55] = asked
    terms = replace(TERMS, options=set_by_operator)
    client = identify(request)
    for reply in (
        responder.offer(request, client, terms, ADDRESS, decision, name),
        responder.ack(request, client, terms, ADDRESS, decision, name),
        responder.inform_ack(request, client, terms, decision, name),
        responder.nak(request, terms, name),
    ):
        length = len(packet.encode(reply.packet))
        assert 300 <= length <= max(576, size) - 28
        assert list(reply.packet.options)[:2] == [53, 54]


def test_options_come_as_the_client_lists_them_after_what_booting_needs() -> None:
    request = captured("discover-ovmf")
    request.options[55] = bytes((15, 28, 6, 1, 42, 12, 119))
    terms = replace(TERMS, options={42: b"\x0a\0\0\1", 15: b"boot.example", 224: b"\1"})
    reply = responder.offer(request, identify(request), terms, ADDRESS, LOADER, "web1").packet
    assert list(reply.options) == [53, 54, 51, 58, 59, 1, 3, 67, 66, 60, 43, 15, 28, 6, 42, 12, 224, 97]


def test_what_is_not_asked_for_is_left_out_but_for_the_operators_word() -> None:
    request = replace(DISCOVER, options=DISCOVER.options | {55: bytes((1, 3))})
    reply = responder.offer(request, identify(request), TERMS, ADDRESS, NOTHING, "web1").packet
    assert not {6, 12, 28} & set(reply.options)
    terms = replace(TERMS, options={42: b"\x0a\0\0\1"})
    assert 42 in responder.offer(request, identify(request), terms, ADDRESS, NOTHING, "").packet.options


def test_who_has_no_list_gets_everything() -> None:
    request = replace(DISCOVER, options={53: b"\1"})
    assert {1, 3, 6, 12, 28} <= set(offer(request).packet.options)


def test_the_operators_word_holds_over_what_follows_from_the_network() -> None:
    other = IPv4Address("10.77.0.9").packed
    terms = replace(TERMS, options={3: other, 6: other, 12: b"named"})
    reply = responder.offer(DISCOVER, identify(DISCOVER), terms, ADDRESS, NOTHING, "web1").packet
    assert (reply.options[3], reply.options[6], reply.options[12]) == (other, other, b"named")


def test_what_firmware_must_hear_holds_over_the_operators_word() -> None:
    request = captured("discover-ovmf")
    terms = replace(TERMS, options={67: b"other.efi", 43: bytes((128, 1, 7))})
    reply = responder.offer(request, identify(request), terms, ADDRESS, LOADER, "").packet
    assert reply.options[67] == b"undionly.kpxe\0"
    assert read(options.VENDOR_SPECIFIC, reply.options) == {6: b"\x08", 128: b"\7"}
    own = replace(TERMS, options={43: bytes((6, 1, 0))})
    reply = responder.offer(request, identify(request), own, ADDRESS, LOADER, "").packet
    assert read(options.VENDOR_SPECIFIC, reply.options) == {6: b"\0"}
    odd = replace(TERMS, options={43: b"\xfe\xff"})
    reply = responder.offer(request, identify(request), odd, ADDRESS, LOADER, "").packet
    assert read(options.VENDOR_SPECIFIC, reply.options) == {6: b"\x08"}


def test_who_is_no_firmware_gets_option_43_as_it_was_set() -> None:
    terms = replace(TERMS, options={43: b"\xfe\xff"})
    reply = responder.offer(DISCOVER, identify(DISCOVER), terms, ADDRESS, NOTHING, "").packet
    assert reply.options[43] == b"\xfe\xff"


def test_the_default_route_stands_among_the_routes() -> None:
    route = Route(IPv4Network("10.0.0.0/8"), RELAY)
    terms = replace(TERMS, options={121: options.CLASSLESS_STATIC_ROUTES.encode((route,))})
    reply = responder.offer(DISCOVER, identify(DISCOVER), terms, ADDRESS, NOTHING, "").packet
    default = Route(IPv4Network("0.0.0.0/0"), SERVER)
    assert read(options.CLASSLESS_STATIC_ROUTES, reply.options) == (route, default)
    own = options.CLASSLESS_STATIC_ROUTES.encode((Route(IPv4Network("0.0.0.0/0"), RELAY),))
    reply = responder.offer(
        DISCOVER, identify(DISCOVER), replace(TERMS, options={121: own}), ADDRESS, NOTHING, ""
    ).packet
    assert reply.options[121] == own


def test_a_long_option_comes_in_parts_that_scapy_reads() -> None:
    request = replace(DISCOVER, options=DISCOVER.options | {57: b"\x05\xdc"})
    value = bytes(range(256)) * 2
    terms = replace(TERMS, options={224: value})
    reply = responder.offer(request, identify(request), terms, ADDRESS, NOTHING, "")
    parts = [item[1] for item in BOOTP(packet.encode(reply.packet))[DHCP].options if item[0] == 224]
    assert b"".join(parts) == value
    assert len(parts) == 3


def test_a_relay_that_says_so_is_answered_at_its_port_and_by_its_name() -> None:
    terms = replace(TERMS, override=RELAY, relay_port=1067)
    request = replace(DISCOVER, giaddr=RELAY)
    reply = responder.offer(request, identify(request), terms, ADDRESS, LOADER, "")
    assert reply.destination == Unicast(RELAY, 1067)
    assert read(options.SERVER_IDENTIFIER, reply.packet.options) == RELAY
    assert reply.packet.siaddr == SERVER
    assert responder.nak(request, terms, "no").destination == Unicast(RELAY, 1067)


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


def test_a_nak_to_who_renews_through_a_router_goes_to_its_address() -> None:
    """A broadcast on our link would never reach it."""
    far = replace(TERMS, subnet=IPv4Network("10.88.0.0/24"))
    renewing = replace(DISCOVER, ciaddr=IPv4Address("10.88.0.100"), flags=0x8000)
    reply = responder.nak(renewing, far, "not yours")
    assert reply.destination == Unicast(IPv4Address("10.88.0.100"), 68)
    assert reply.packet.ciaddr == IPv4Address(0)
    on_our_link = replace(DISCOVER, ciaddr=IPv4Address(0))  # it names that subnet by option 118
    assert responder.nak(on_our_link, far, "not yours").destination == Broadcast()


def test_a_nak_through_a_relay_is_to_be_broadcast_there() -> None:
    reply = responder.nak(replace(DISCOVER, giaddr=RELAY), TERMS, "not yours")
    assert (reply.destination, reply.packet.flags) == (Unicast(RELAY, 67), 0x8000)


def test_inform_is_answered_without_address_and_times() -> None:
    request = replace(DISCOVER, ciaddr=ADDRESS)
    reply = responder.inform_ack(request, identify(request), TERMS, NOTHING, "web1")
    assert (reply.packet.yiaddr, reply.destination) == (IPv4Address(0), Unicast(ADDRESS, 68))
    assert not {51, 58, 59} & set(reply.packet.options)
