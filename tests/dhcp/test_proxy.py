"""ProxyDHCP: what firmware is told beside another server, at port 67 and at port 4011."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxeboot.dhcp import options, packet, proxy
from pxeboot.dhcp.options import MessageType, read
from pxeboot.dhcp.packet import Packet
from pxeboot.dhcp.responder import Broadcast, Reply, Unicast
from pxeboot.dhcp.terms import Terms
from pxeboot.mac import Mac
from pxeboot.pxe.client import identify
from pxeboot.pxe.policy import Decision

DATA = Path(__file__).parent.parent / "data"
SERVER, OTHER, ADDRESS, RELAY = (IPv4Address(f"10.77.0.{n}") for n in (1, 2, 100, 254))
NOWHERE = IPv4Address(0)
LOADER = Decision("snponly.efi", "test")
SCRIPT = Decision("http://10.77.0.1/ipxe/52:54:00:77:00:01", "test")
URL = Decision("http://10.77.0.1/loader/snponly.efi", "test")


def captured(name: str) -> Packet:
    return packet.decode((DATA / f"{name}.bin").read_bytes())


TERMS = Terms(SERVER, IPv4Network("10.77.0.0/24"), SERVER, (SERVER,), 3600)
MENU = {
    6: b"\x07",  # ask only those in the list, and not by broadcast or multicast
    8: b"\x80\x01\x01" + SERVER.packed,
    9: b"\x80\x01\x07pxeboot\0\0\x0alocal disk",
    10: b"\x05Press F8",
}


def offer(request: Packet, decision: Decision, terms: Terms = TERMS) -> Packet:
    return proxy.offer(request, identify(request), terms, decision).packet


def ack(request: Packet, decision: Decision, peer: tuple[IPv4Address, int] = (ADDRESS, 4011)) -> Reply:
    reply = proxy.boot_server_ack(request, identify(request), TERMS, decision, peer)
    assert reply is not None
    return reply


@pytest.mark.parametrize(
    ("name", "decision"),
    [("ipxe-bios", SCRIPT), ("ipxe-efi", SCRIPT), ("ovmf", LOADER), ("ovmf-http", URL)],
)
def test_an_offer_has_a_boot_file_and_no_address_and_no_lease(name: str, decision: Decision) -> None:
    reply = offer(captured(f"discover-{name}"), decision)
    assert (reply.yiaddr, reply.siaddr, reply.file) == (NOWHERE, SERVER, decision.bootfile.encode())
    assert read(options.BOOTFILE_NAME, reply.options) == decision.bootfile
    assert read(options.SERVER_IDENTIFIER, reply.options) == SERVER
    assert not {1, 3, 6, 12, 28, 51, 58, 59} & set(reply.options)


def test_efi_firmware_hears_no_suboptions_so_that_it_asks_at_4011() -> None:
    request = captured("discover-ovmf")
    assert 43 not in offer(request, LOADER).options
    assert 43 not in ack(request, LOADER).packet.options


@pytest.mark.parametrize("vendor", ["PXEClient:Arch:00000:UNDI:002001", "PXEClient"])
def test_a_bios_is_told_to_load_the_file_without_a_menu(vendor: str) -> None:
    request = Packet(1, 1, b"\x52\x54\0\0\0\1", options={60: vendor.encode(), 93: b"\0\0"})
    reply = offer(request, Decision("undionly.kpxe", "test"))
    assert reply.options[43] == b"\x06\x01\x08\xff"
    assert reply.options[60] == b"PXEClient"


def test_ipxe_needs_no_second_question() -> None:
    assert read(options.VENDOR_SPECIFIC, offer(captured("discover-ipxe-efi"), SCRIPT).options) == {6: b"\x08"}


def test_http_boot_hears_its_own_class_and_no_words_of_pxe() -> None:
    reply = offer(captured("discover-ovmf-http"), URL)
    assert reply.options[60] == b"HTTPClient"
    assert not {43, 66, 175} & set(reply.options)


def test_a_raspberry_pi_finds_the_menu_it_looks_for() -> None:
    request = Packet(
        1, 1, Mac("b8:27:eb:00:00:01").packed, options={60: b"PXEClient:Arch:00000", 93: b"\0\0"}
    )
    menu = read(options.VENDOR_SPECIFIC, offer(request, Decision("bootcode.bin", "test")).options)
    assert menu == {6: b"\x03", 10: b"\0PXE", 9: b"\0\0\x11Raspberry Pi Boot"}


def test_a_raspberry_pi_5_is_known_by_what_it_says() -> None:
    request = captured("made-raspberry-pi-5")
    client = identify(request)
    assert (client.is_raspberry_pi, client.architecture, client.is_bios) == (True, 0, True)
    assert identify(replace(request, chaddr=b"\x52\x54\0\0\0\1")).is_raspberry_pi  # by option 97 alone
    reply = offer(request, Decision("bootcode.bin", "test"))
    assert reply.options[43] == b"\x06\x01\x03\x0a\x04\0PXE\x09\x14\0\0\x11Raspberry Pi Boot\xff"
    assert (reply.options[60], reply.siaddr) == (b"PXEClient", SERVER)
    assert reply.options[97] == request.options[97]


def test_an_offer_is_broadcast_for_the_client_has_no_address() -> None:
    request = captured("discover-ovmf")
    client = identify(request)
    assert proxy.offer(request, client, TERMS, LOADER).destination == Broadcast()
    relayed = replace(request, giaddr=RELAY)
    assert proxy.offer(relayed, client, TERMS, LOADER).destination == Unicast(RELAY, 67)


@pytest.mark.parametrize("port", [68, 4011, 1075])
def test_an_answer_from_4011_goes_to_where_the_question_came_from(port: int) -> None:
    reply = ack(captured("boot-server-ovmf"), LOADER, (ADDRESS, port))
    assert reply.destination == Unicast(ADDRESS, port)
    assert read(options.MESSAGE_TYPE, reply.packet.options) is MessageType.ACK
    assert (reply.packet.file, reply.packet.siaddr) == (b"snponly.efi", SERVER)


def test_a_client_at_4011_without_address_is_answered_by_broadcast() -> None:
    assert ack(captured("boot-server-ovmf"), LOADER, (NOWHERE, 68)).destination == Broadcast()


def test_the_item_chosen_from_a_menu_is_answered_with_itself() -> None:
    request = captured("boot-server-ovmf")
    request.options[43] = b"\x47\x04\x00\x0f\x00\x00\xff"
    reply = ack(request, LOADER)
    assert read(options.VENDOR_SPECIFIC, reply.packet.options) == {71: b"\0\x0f\0\0"}
    request.options[43] = b"\x47\x02\x00\x0f\xff"  # an item without layer is none
    assert 43 not in ack(request, LOADER).packet.options


@pytest.mark.parametrize("layer", [b"\0\x01", b"\x80\0"])
def test_layers_after_the_first_and_signed_files_are_left_to_who_has_them(layer: bytes) -> None:
    request = captured("boot-server-ovmf")
    request.options[43] = b"\x47\x04\x00\x0f" + layer + b"\xff"
    assert proxy.boot_server_ack(request, identify(request), TERMS, LOADER, (ADDRESS, 4011)) is None


def test_the_operators_menu_is_offered_to_firmware_that_takes_one() -> None:
    terms = replace(TERMS, options={43: options.VENDOR_SPECIFIC.encode(MENU)})
    bios = Packet(1, 1, b"\x52\x54\0\0\0\1", options={60: b"PXEClient", 93: b"\0\0"})
    assert read(options.VENDOR_SPECIFIC, offer(bios, Decision("undionly.kpxe", ""), terms).options) == MENU
    assert 43 not in offer(captured("discover-ovmf"), LOADER, terms).options


def test_identifiers_are_echoed_and_a_missing_machine_identifier_is_no_fault() -> None:
    request = captured("boot-server-ovmf")
    assert ack(request, LOADER).packet.options[97] == request.options[97]
    del request.options[97]
    assert 97 not in ack(request, LOADER).packet.options


@given(
    st.dictionaries(st.sampled_from([43, 57, 60, 77, 82, 93, 97, 175]), st.binary(max_size=60)),
    st.sampled_from([LOADER, SCRIPT, URL]),
)
def test_any_request_gets_an_answer_of_legal_size(codes: dict[int, bytes], decision: Decision) -> None:
    request = Packet(1, 1, b"\x52\x54\0\0\0\1", options=codes)
    for reply in (offer(request, decision), ack(request, decision).packet):
        assert 300 <= len(packet.encode(reply)) <= 65535
        assert reply.yiaddr == NOWHERE


@pytest.mark.parametrize(
    ("codes", "ciaddr", "address"),
    [
        ({54: OTHER.packed, 50: ADDRESS.packed}, NOWHERE, ADDRESS),  # takes the other server's offer
        ({}, ADDRESS, ADDRESS),  # has it
        ({50: ADDRESS.packed}, NOWHERE, None),  # remembers it, perhaps wrongly
        ({54: OTHER.packed}, NOWHERE, None),
        ({54: OTHER.packed, 50: b"\1"}, NOWHERE, None),
    ],
)
def test_the_address_that_another_server_gave_is_read_from_the_request(
    codes: dict[int, bytes], ciaddr: IPv4Address, address: IPv4Address | None
) -> None:
    assert proxy.address_taken(Packet(1, 1, b"\x52\x54\0\0\0\1", ciaddr=ciaddr, options=codes)) == address


def test_real_firmware_tells_its_address_at_4011() -> None:
    request = captured("boot-server-ovmf")
    assert proxy.address_taken(request) == IPv4Address("10.77.0.130")
    assert identify(request) == identify(captured("discover-ovmf"))
