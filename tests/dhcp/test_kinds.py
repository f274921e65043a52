"""Questions known by their bytes: what is known, what is not, and how much of it."""

from ipaddress import IPv4Address
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pxeboot.config import parse
from pxeboot.dhcp import kinds, packet
from pxeboot.dhcp.kinds import Kinds
from pxeboot.dhcp.options import MessageType
from pxeboot.dhcp.packet import BOOTREQUEST, Packet
from pxeboot.dhcp.verdict import Asks
from pxeboot.site import Network

SERVER = IPv4Address("10.77.0.1")
CONFIG = """
[server]
state_dir = "/nowhere"
[[network]]
interface = "eth1"
subnet = "10.77.0.0/24"
pool = ["10.77.0.100-10.77.0.102"]
"""
NETWORK = Network(parse(CONFIG).network[0], SERVER)


def question(number: int, kind: MessageType = MessageType.DISCOVER, **told: Any) -> bytes:
    carried = {53: bytes((kind,)), **told.pop("options", {55: b"\1\3\6"})}
    return packet.encode(Packet(BOOTREQUEST, number, number.to_bytes(6, "big"), options=carried, **told))


def learn(known: Kinds, data: bytes) -> kinds.Kind | None:
    return known.learn(data, lambda _: NETWORK)


@given(st.binary(max_size=600) | st.binary(max_size=80).map(lambda tail: question(1)[:240] + tail))
def test_any_bytes_are_of_a_kind_or_of_none(data: bytes) -> None:
    known = Kinds(SERVER)
    assert known.find(data) is None
    learnt = learn(known, data)
    assert known.find(data) is learnt


def test_another_machine_that_asks_the_same_is_of_the_same_kind() -> None:
    known = Kinds(SERVER)
    first = learn(known, question(1, secs=0))
    assert first is not None
    assert known.find(question(2, secs=4)) is first


def test_whatever_else_differs_makes_another_kind() -> None:
    known = Kinds(SERVER)
    learn(known, question(1))
    for other in (
        question(2, options={55: b"\1\3\7"}),
        question(2, flags=0x8000),
        question(2, giaddr=IPv4Address("10.77.0.9")),
        question(2, MessageType.REQUEST),
        question(2, ciaddr=IPv4Address("10.77.0.100")),
    ):
        assert known.find(other) is None


def test_a_request_is_known_as_selecting_or_renewing_only() -> None:
    known, wanted = Kinds(SERVER), IPv4Address("10.77.0.100")
    selecting = learn(known, question(1, MessageType.REQUEST, options={50: wanted.packed, 54: SERVER.packed}))
    renewing = learn(known, question(1, MessageType.REQUEST, ciaddr=wanted))
    assert selecting is not None and renewing is not None
    assert (selecting.asks, renewing.asks) == (Asks.SELECTING, Asks.RENEWING)
    assert learn(known, question(1, MessageType.REQUEST, options={50: wanted.packed})) is None  # INIT-REBOOT


def test_what_only_the_service_can_judge_is_of_no_kind() -> None:
    known = Kinds(SERVER)
    for options in (
        {60: b"PXEClient:Arch:00000", 93: b"\0\0"},
        {82: b"\1\1\1"},
        {97: b"\0" + bytes(16)},
        {118: SERVER.packed},
        {52: b"\1"},
        {50: b"\1\2\3"},
    ):
        assert learn(known, question(1, options=options)) is None


def test_kinds_are_bounded_in_all_and_of_one_length() -> None:
    known = Kinds(SERVER)
    for number in range(kinds.MAX_KINDS * 2):
        learn(
            known,
            question(
                1,
                options={60: number.to_bytes(2, "big"), 12: bytes(number % 30), 77: bytes(31 - number % 30)},
            ),
        )
    layouts = [layout for row in known._layouts.values() for layout in row]
    assert sum(len(layout.kinds) for layout in layouts) <= kinds.MAX_KINDS
    assert max(len(row) for row in known._layouts.values()) <= kinds.MAX_LAYOUTS
