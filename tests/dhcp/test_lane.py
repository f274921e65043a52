"""The fast lane says what the service says: any history of questions, to both, on a store each."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pxeboot.app import _subnets
from pxeboot.config import parse
from pxeboot.dhcp import packet
from pxeboot.dhcp.form import Filled
from pxeboot.dhcp.lane import Lane
from pxeboot.dhcp.options import MessageType
from pxeboot.dhcp.packet import BOOTREQUEST, Packet
from pxeboot.dhcp.responder import Reply, Unicast
from pxeboot.dhcp.service import DhcpService
from pxeboot.events import Bus
from pxeboot.inventory.node import Node
from pxeboot.inventory.progress import Progress
from pxeboot.inventory.sqlite import SqliteStore
from pxeboot.inventory.store import Store, open_store
from pxeboot.mac import Mac
from pxeboot.site import Network, Site

SERVER, RELAY, ROUTED = IPv4Address("10.77.0.1"), IPv4Address("10.77.0.9"), IPv4Address("10.88.0.9")
CONFIG = """
[server]
state_dir = "/nowhere"
[[network]]
interface = "eth1"
subnet = "10.77.0.0/24"
pool = ["10.77.0.100-10.77.0.102"]
[[network]]
subnet = "10.88.0.0/24"
pool = ["10.88.0.100-10.88.0.149"]
[[group]]
name = "web"
image = "web"
match = ["52:54:00:00:00:01", "52:54:00:00:00:02"]
options = { domain-name = "web.example" }
"""
MACS = [Mac(f"52:54:00:00:00:{number:02x}") for number in range(8)]


@dataclass
class Side:
    """One way to answer, and what it has said."""

    store: Store
    site: Site
    answer: Callable[[list[tuple[bytes, int]]], None] = lambda batch: None
    said: list[tuple[bytes, object]] = field(default_factory=list)
    by_lane: int = 0

    def send(self, reply: Reply | Filled) -> None:
        self.said.append((reply.payload, reply.destination))


async def side(path: Path, *, fast: bool) -> Side:
    config = parse(CONFIG)
    site = Site(config, tuple(Network(item, SERVER if item.interface else None) for item in config.network))
    path.mkdir()
    store = open_store(path)
    await store.use_subnets(_subnets(site))
    await store.save_node(Node(MACS[3], "db1", known_since=1.0))
    await store.save_node(Node(MACS[4], "db2", options={"domain-name": "db.example"}, known_since=1.0))
    made = Side(store, site)
    service = DhcpService("eth1", SERVER, site, store, Progress(store, Bus()), {}, made.send)
    if fast:

        def send(reply: Reply | Filled) -> None:
            made.by_lane += 1
            made.send(reply)

        made.answer = Lane("eth1", SERVER, site, store, {}, service, send).take
    else:

        def one_by_one(batch: list[tuple[bytes, int]]) -> None:
            for data, port in batch:
                work = service.answer(data, port)
                asyncio.ensure_future(work)  # noqa: RUF006  awaited by `settle`

        made.answer = one_by_one
    return made


async def settle(one: Side) -> None:
    """Until all that was asked has been answered."""
    for _ in range(3):
        await asyncio.sleep(0)
    assert isinstance(one.store, SqliteStore)
    while one.store._flushing is not None or one.store._waiting:
        await asyncio.sleep(0.001)
    for _ in range(3):
        await asyncio.sleep(0)


def question(number: int, kind: MessageType, **told: Any) -> bytes:
    mac = MACS[number].packed
    carried = {53: bytes((kind,)), **told.pop("options", {}), 61: b"\1" + mac}
    return packet.encode(Packet(BOOTREQUEST, told.pop("xid", 7), mac, options=carried, **told))


ASKED = st.sampled_from([{55: b"\1\3\6\x0f\x0c"}, {12: b"me", 55: b"\x0c"}])
PLACES = st.sampled_from([IPv4Address(0), IPv4Address(0), RELAY, ROUTED])
KINDS = [MessageType.DISCOVER, MessageType.REQUEST, MessageType.RELEASE, MessageType.DECLINE]


@st.composite
def questions(draw: st.DrawFn) -> tuple[bytes, int]:
    """Anything that a few machines may ask for, often what they have been offered."""
    kind = draw(st.sampled_from([*KINDS, MessageType.DISCOVER, MessageType.REQUEST, MessageType.REQUEST]))
    place = draw(PLACES)
    number = draw(st.sampled_from([1, 3, 4, 5, 6]))
    net = "10.88.0" if place == ROUTED else "10.77.0"
    address = IPv4Address(f"{net}.{draw(st.integers(99, 102))}")
    carried = dict(draw(ASKED))
    fields: dict[str, Any] = {"giaddr": place, "flags": draw(st.sampled_from([0, 0x8000]))}
    match draw(st.sampled_from(["selecting", "renewing", "rebooting", "elsewhere", "bare"])):
        case "selecting":
            carried |= {50: address.packed, 54: SERVER.packed}
        case "renewing":
            fields["ciaddr"] = address
        case "rebooting":
            carried |= {50: address.packed}
        case "elsewhere":
            carried |= {50: address.packed, 54: RELAY.packed}
    if draw(st.integers(0, 4)) == 0:
        carried |= draw(
            st.sampled_from([{60: b"PXEClient:Arch:00000", 93: b"\0\0"}, {82: b"\x0b\4\1\2\3\4"}])
        )
    return question(number, kind, options=carried, xid=draw(st.integers(0, 2**32 - 1)), **fields), 68


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(questions(), min_size=1, max_size=6), min_size=1, max_size=12))
def test_any_history_of_questions_is_answered_as_by_the_service(
    tmp_path_factory: pytest.TempPathFactory, history: list[list[tuple[bytes, int]]]
) -> None:
    async def compare() -> None:
        path = tmp_path_factory.mktemp("lane")
        sides = [await side(path / "fast", fast=True), await side(path / "plain", fast=False)]
        try:
            for batch in history:
                for one in sides:
                    one.said.clear()
                    one.answer(batch)
                    await settle(one)
                fast, plain = (sorted(one.said, key=repr) for one in sides)
                assert fast == plain
            fast_leases, plain_leases = [await one.store.leases() for one in sides]
            assert [(item.address, item.mac, item.state) for item in fast_leases] == [
                (item.address, item.mac, item.state) for item in plain_leases
            ]
        finally:
            for one in sides:
                await one.store.close()

    asyncio.run(compare())


@pytest.fixture
async def lane(tmp_path: Path) -> AsyncIterator[Side]:
    made = await side(tmp_path / "lane", fast=True)
    yield made
    await made.store.close()


def exchange(number: int, address: str, place: IPv4Address = RELAY) -> list[bytes]:
    carried = {55: b"\1\3\6"}
    chosen = {**carried, 50: IPv4Address(address).packed, 54: SERVER.packed}
    return [
        question(number, MessageType.DISCOVER, options=carried, giaddr=place),
        question(number, MessageType.REQUEST, options=chosen, giaddr=place),
    ]


async def test_a_whole_exchange_of_a_stranger_goes_by_the_lane(lane: Side) -> None:
    for number in (5, 6):
        lane.by_lane = 0
        lane.answer([(data, 67) for data in exchange(number, f"10.77.0.{95 + number}")])
        await settle(lane)
        assert lane.by_lane == 2
    assert [destination for _, destination in lane.said] == [Unicast(RELAY, 67)] * 4


async def test_a_machine_with_options_of_its_own_is_left_to_the_service(lane: Side) -> None:
    for data in exchange(4, "10.77.0.100") * 2:
        lane.answer([(data, 67)])
        await settle(lane)
    assert (len(lane.said), lane.by_lane) == (4, 0)


async def test_an_ack_leaves_after_its_commit_and_an_offer_before(lane: Side) -> None:
    lane.answer([(data, 67) for data in exchange(5, "10.77.0.100")])
    assert [packet.decode(data).message_type for data, _ in lane.said] == [MessageType.OFFER]
    await settle(lane)
    assert [packet.decode(data).message_type for data, _ in lane.said][1:] == [MessageType.ACK]


async def test_no_ack_leaves_when_the_disk_fails(lane: Side) -> None:
    assert isinstance(lane.store, SqliteStore)
    lane.store._db.execute("PRAGMA query_only = ON")
    lane.answer([(data, 67) for data in exchange(5, "10.77.0.100")])
    await settle(lane)
    assert [packet.decode(data).message_type for data, _ in lane.said] == [MessageType.OFFER]
    lane.store._db.execute("PRAGMA query_only = OFF")
    lane.answer([(data, 67) for data in exchange(5, "10.77.0.100")])
    await settle(lane)
    assert packet.decode(lane.said[-1][0]).message_type is MessageType.ACK


async def test_a_changed_configuration_holds_from_the_next_batch_on(lane: Side) -> None:
    lane.answer([(exchange(5, "10.77.0.100")[0], 67)])
    changed = parse(CONFIG.replace('interface = "eth1"', 'interface = "eth1"\nlease_seconds = 90'))
    lane.site.config = changed
    lane.site.networks = tuple(Network(item, SERVER if item.interface else None) for item in changed.network)
    lane.answer([(exchange(6, "10.77.0.101")[0], 67)])
    await settle(lane)
    assert [int.from_bytes(packet.decode(data).options[51], "big") for data, _ in lane.said] == [3600, 90]


async def test_packets_of_one_machine_keep_their_order_across_lane_and_service(lane: Side) -> None:
    discover, request = exchange(5, "10.77.0.100")
    release = question(5, MessageType.RELEASE, options={54: SERVER.packed}, ciaddr=IPv4Address("10.77.0.100"))
    lane.answer([(discover, 67), (request, 67), (release, 68)])
    await settle(lane)
    assert [(item.mac, item.state.value) for item in await lane.store.leases()] == [(MACS[5], "released")]


async def test_nonsense_beside_others_harms_only_itself(lane: Side) -> None:
    good = exchange(5, "10.77.0.100")
    torn = [good[0][:size] for size in range(0, 260, 13)]
    lane.answer([(data, 67) for data in itertools.chain(torn, good, torn)])
    await settle(lane)
    assert len([data for data, _ in lane.said if packet.decode(data).xid == 7]) >= 2
