"""What is asked, and what the answers of real and made-up servers say of them."""

from dataclasses import replace
from ipaddress import IPv4Address
from uuid import UUID

import pytest
from scapy.layers.dhcp import BOOTP, DHCP

from pxeboot.dhcp import packet
from pxeboot.diagnose.servers import QUESTIONS, Heard, Server, questions, remarks, servers
from pxeboot.mac import Mac
from pxeboot.pxe.client import identify

CLIENT = Mac("02:00:00:00:00:05")
ONE, OTHER = Mac("52:54:00:00:00:01"), Mac("52:54:00:00:00:02")
NAMES = list(QUESTIONS)
ASKED = dict(enumerate(NAMES, start=100))
MACHINE = UUID(int=5)
LOADER = (("boot-file-name", b"snponly.efi"), ("tftp_server_name", b"10.77.0.9"))


def ip(last: int) -> IPv4Address:
    return IPv4Address("10.77.0.0") + last


def offer(
    question: str,
    server: int | None = 1,
    yiaddr: str = "10.77.0.100",
    file: bytes = b"",
    options: tuple[tuple[str, object], ...] = (),
) -> bytes:
    """An OFFER as scapy writes it."""
    identifier = [] if server is None else [("server_id", str(ip(server)))]
    xid = 100 + NAMES.index(question)
    header = BOOTP(op=2, xid=xid, chaddr=CLIENT.packed, yiaddr=yiaddr, siaddr="10.77.0.1", file=file)
    return bytes(header / DHCP(options=[("message-type", "offer"), *identifier, *options, "end"]))


def heard(payload: bytes, mac: Mac = ONE, last: int = 1, interface: str = "eth1") -> Heard:
    return Heard(interface, mac, ip(last), payload)


@pytest.mark.parametrize("name", QUESTIONS)
def test_scapy_reads_each_question_as_a_discover_that_wants_a_broadcast(name: str) -> None:
    (payload,) = [data for asked, data in questions(CLIENT, MACHINE, 100).values() if asked == name]
    read = BOOTP(payload)
    options = dict(item for item in read[DHCP].options if isinstance(item, tuple) and len(item) == 2)
    assert (read.op, read.chaddr[:6], int(read.flags)) == (1, CLIENT.packed, 0x8000)
    assert options["message-type"] == 1
    assert "requested_addr" not in options


def test_each_question_is_of_the_client_that_it_is_named_for_and_known_as_a_probe() -> None:
    told = questions(CLIENT, MACHINE, 100)
    assert {xid: name for xid, (name, _) in told.items()} == ASKED
    asks = {name: identify(packet.decode(payload)) for name, payload in told.values()}
    assert all(client.is_probe for client in asks.values())
    assert [(name, item.wants_pxe, item.wants_http, item.architecture) for name, item in asks.items()] == [
        ("plain", False, False, None),
        ("BIOS", True, False, 0),
        ("UEFI", True, False, 7),
        ("HTTP", False, True, 16),
    ]


def test_a_full_server_is_one_row_with_what_each_client_would_load() -> None:
    rows = servers(
        [
            heard(offer("plain")),
            heard(offer("BIOS", file=b"undionly.kpxe")),
            heard(offer("UEFI", options=LOADER)),
            heard(offer("HTTP", options=(("boot-file-name", b"http://10.77.0.1/x.efi"),))),
            heard(offer("plain")),  # asked twice
        ],
        ASKED,
        CLIENT,
    )
    boots = {
        "BIOS": "undionly.kpxe from 10.77.0.1",
        "UEFI": "snponly.efi from 10.77.0.9",
        "HTTP": "http://10.77.0.1/x.efi",
    }
    assert rows == [Server("eth1", ip(1), ONE, ip(1), True, False, ip(100), boots)]
    assert rows[0].kind == "DHCP"


def test_a_proxy_gives_no_address_and_may_want_to_be_asked_again() -> None:
    answers = [
        heard(offer("UEFI", yiaddr="0.0.0.0")),
        heard(offer("BIOS", yiaddr="0.0.0.0", file=b"pxelinux.0")),
    ]
    (row,) = servers(answers, ASKED, CLIENT)
    assert (row.kind, row.offered) == ("ProxyDHCP", None)
    assert row.boots == {"BIOS": "pxelinux.0 from 10.77.0.1", "UEFI": "asks it again at port 4011"}
    assert list(row.boots) == ["BIOS", "UEFI"]  # in the order of the questions


def test_one_that_does_both_is_called_both() -> None:
    answers = [heard(offer("plain")), heard(offer("BIOS", yiaddr="0.0.0.0", file=b"x"))]
    (row,) = servers(answers, ASKED, CLIENT)
    assert row.kind == "DHCP and ProxyDHCP"


def test_servers_are_parted_by_identifier_sender_and_interface() -> None:
    answers = [
        heard(offer("plain")),
        heard(offer("plain", server=2)),
        heard(offer("plain"), mac=OTHER),
        heard(offer("plain"), last=9),
        heard(offer("plain"), interface="eth2"),
    ]
    assert len(servers(answers, ASKED, CLIENT)) == 5


def test_a_server_without_identifier_is_named_by_its_address() -> None:
    (row,) = servers([heard(offer("plain", server=None), last=7)], ASKED, CLIENT)
    assert row.server == ip(7)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff" * 300,
        questions(CLIENT, MACHINE, 100)[100][1],  # our own question
        bytes(BOOTP(op=2, xid=100, chaddr=CLIENT.packed) / DHCP(options=[("message-type", "nak"), "end"])),
        bytes(BOOTP(op=2, xid=7, chaddr=CLIENT.packed) / DHCP(options=[("message-type", "offer"), "end"])),
        bytes(BOOTP(op=2, xid=100, chaddr=ONE.packed) / DHCP(options=[("message-type", "offer"), "end"])),
    ],
)
def test_what_answers_no_question_of_ours_is_left_out(payload: bytes) -> None:
    assert servers([heard(payload)], ASKED, CLIENT) == []


def test_remarks_name_silence_rivals_and_our_own_server_that_is_not_heard() -> None:
    one = Server("eth1", ip(1), ONE, ip(1), True, False, ip(100), {})
    proxy = replace(one, server=ip(3), gives_addresses=False, gives_boot_only=True)
    assert remarks([one, proxy, replace(one, mac=OTHER)], ["eth1"], {"eth1": ip(1)}, 5) == []
    rivals = remarks([one, replace(one, server=ip(2))], ["eth1"], {}, 5)
    assert len(rivals) == 1
    assert rivals[0].startswith("eth1: 2 servers give addresses (10.77.0.1, 10.77.0.2)")
    assert remarks([one], ["eth1", "eth2"], {"eth2": ip(9)}, 2.5) == [
        "eth2: nobody answered within 2.5 s",
        "eth2: this box's pxeboot (10.77.0.9) did not answer; see its log",
    ]
