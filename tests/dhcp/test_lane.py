"""The fast lane says what the service says: any history of questions, to both, on a store each."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
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
from pxeboot.dhcp.outbox import Letter
from pxeboot.dhcp.packet import BOOTREQUEST, Packet
from pxeboot.dhcp.prober import Prober
from pxeboot.dhcp.responder import Reply, Unicast
from pxeboot.dhcp.service import DhcpService
from pxeboot.events import Bus
from pxeboot.inventory.node import Node
from pxeboot.inventory.progress import Progress
from pxeboot.inventory.sqlite import SqliteStore
from pxeboot.inventory.store import Store, open_store
from pxeboot.mac import Mac
from pxeboot.site import Network, Site
from pxeboot.tasks import Tasks

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
    busy: Callable[[], int] = lambda: 0
    said: list[tuple[bytes, object]] = field(default_factory=list)
    by_lane: int = 0

    def send(self, reply: Reply | Filled) -> None:
        self.said.append((reply.payload, reply.destination))

    def send_all(self, letters: list[Letter]) -> None:
        self.by_lane += len(letters)
        self.said += letters


class Neighbourhood(Prober):
    """A prober whose wire is played: who has which address, and what has been probed already."""

    def __init__(self, site: Site, store: Store, taken: set[IPv4Address], stock: list[IPv4Address]) -> None:
        super().__init__("eth1", site, store)
        self.taken, self.stock, self.probed = taken, stock, store

    @property
    def probes(self) -> bool:
        return True

    def draw(self) -> IPv4Address | None:
        return self.stock.pop(0) if self.stock else None

    async def is_free(self, address: IPv4Address, client: Mac) -> bool:
        if address in self.stock:
            self.stock.remove(address)
            return True
        await asyncio.sleep(0)
        if address not in self.taken:
            return True
        await self.probed.quarantine(IPv4Network("10.77.0.0/24"), address, MACS[0], time.time())
        return False


async def side(
    path: Path, *, fast: bool, taken: Sequence[IPv4Address] = (), stock: Sequence[IPv4Address] | None = None
) -> Side:
    """`taken` and `stock` are the neighbourhood's; without a stock there are no probes."""
    config = parse(CONFIG)
    site = Site(config, tuple(Network(item, SERVER if item.interface else None) for item in config.network))
    path.mkdir()
    store = open_store(path)
    assert isinstance(store, SqliteStore)
    store._db.execute("PRAGMA synchronous = OFF")  # nothing here is about the disk
    await store.use_subnets(_subnets(site))
    await store.save_node(Node(MACS[3], "db1", known_since=1.0))
    await store.save_node(Node(MACS[6], "db3", address=IPv4Address("10.77.0.50"), known_since=1.0))
    await store.save_node(Node(MACS[4], "db2", options={"domain-name": "db.example"}, known_since=1.0))
    made = Side(store, site)
    probers = {} if stock is None else {"eth1": Neighbourhood(site, store, set(taken), list(stock))}
    service = DhcpService("eth1", SERVER, site, store, Progress(store, Bus()), probers, made.send)
    if fast:
        lane = Lane("eth1", SERVER, site, store, probers, service, made.send_all)
        made.answer, made.busy = lane.take, lambda: lane.under_way
    else:
        tasks = Tasks()

        def one_by_one(batch: list[tuple[bytes, int]]) -> None:
            for data, port in batch:
                tasks.start(service.answer(data, port), "DHCP request")

        made.answer, made.busy = one_by_one, lambda: len(tasks)
    return made


async def settle(one: Side) -> None:
    """Until all that was asked has been answered."""
    assert isinstance(one.store, SqliteStore)
    deadline = time.monotonic() + 20
    while one.busy() or one.store._flushing is not None:
        assert time.monotonic() < deadline, f"{one.busy()} requests hang, commit: {one.store._flushing}"
        await asyncio.sleep(0)


def question(number: int, kind: MessageType, **told: Any) -> bytes:
    mac = MACS[number].packed
    carried = {53: bytes((kind,)), **told.pop("options", {}), 61: b"\1" + mac}
    return packet.encode(Packet(BOOTREQUEST, told.pop("xid", 7), mac, options=carried, **told))


ASKED = st.sampled_from([{55: b"\1\3\6\x0f\x0c"}, {12: b"me", 55: b"\x0c"}])
PLACES = st.sampled_from([IPv4Address(0), IPv4Address(0), RELAY, ROUTED])
ADDRESSES = st.sampled_from([IPv4Address(f"10.77.0.{number}") for number in (50, 100, 101, 102)])
KINDS = [MessageType.DISCOVER, MessageType.REQUEST, MessageType.RELEASE, MessageType.DECLINE]


@st.composite
def questions(draw: st.DrawFn) -> tuple[bytes, int]:
    """Anything that a few machines may ask for, often what they have been offered."""
    kind = draw(st.sampled_from([*KINDS, MessageType.DISCOVER, MessageType.REQUEST, MessageType.REQUEST]))
    place = draw(PLACES)
    number = draw(st.sampled_from([1, 3, 4, 5, 6]))
    net = "10.88.0" if place == ROUTED else "10.77.0"
    address = IPv4Address(f"{net}.{draw(st.sampled_from([50, 99, 100, 101, 102]))}")
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


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.lists(questions(), min_size=1, max_size=6), min_size=1, max_size=12),
    st.sets(ADDRESSES),
    st.none() | st.lists(ADDRESSES, unique=True),
)
def test_any_history_of_questions_is_answered_as_by_the_service(
    tmp_path_factory: pytest.TempPathFactory,
    history: list[list[tuple[bytes, int]]],
    taken: set[IPv4Address],
    stock: list[IPv4Address] | None,
) -> None:
    async def compare() -> None:
        path = tmp_path_factory.mktemp("lane")
        free = None if stock is None else [address for address in stock if address not in taken]
        sides = [
            await side(path / name, fast=name == "fast", taken=list(taken), stock=free)
            for name in ("fast", "plain")
        ]
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
    for number, address in ((5, 100), (7, 101)):
        lane.by_lane = 0
        lane.answer([(data, 67) for data in exchange(number, f"10.77.0.{address}")])
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


async def test_who_must_wait_for_a_probe_waits_and_the_others_do_not(tmp_path: Path) -> None:
    stock = [IPv4Address("10.77.0.101"), IPv4Address("10.77.0.102")]
    made = await side(tmp_path / "probed", fast=True, taken=[IPv4Address("10.77.0.50")], stock=stock)
    plain = {55: b"\1\3\6"}
    made.answer([(question(5, MessageType.DISCOVER, options=plain), 68)])
    assert made.by_lane == 1  # at once, from the stock
    wanting = {**plain, 50: IPv4Address("10.77.0.100").packed}
    made.answer([(question(7, MessageType.DISCOVER, options=wanting), 68)])  # what it names is to be probed
    made.answer([(question(6, MessageType.DISCOVER, options=plain), 68)])  # what is reserved for it as well
    assert (made.by_lane, len(made.said)) == (1, 1)
    await settle(made)
    offered = {data[33]: packet.decode(data).yiaddr for data, _ in made.said}
    assert (offered[5], offered[7]) == (stock[0], IPv4Address("10.77.0.100"))
    assert offered[6] != IPv4Address("10.77.0.50")  # somebody has it
    await made.store.close()


async def test_a_probe_that_fails_for_an_address_acknowledged_meanwhile_ends(tmp_path: Path) -> None:
    taken = IPv4Address("10.77.0.100")
    made = await side(tmp_path / "taken", fast=True, taken=[taken], stock=[])
    wanting = {55: b"\1\3\6", 50: taken.packed}
    discover = question(7, MessageType.DISCOVER, options=wanting)
    made.answer(
        [(discover, 68), (question(7, MessageType.REQUEST, options={**wanting, 54: SERVER.packed}), 68)]
    )
    await settle(made)
    said = [packet.decode(data) for data, _ in made.said]
    assert {(item.message_type, item.yiaddr) for item in said} == {
        (MessageType.OFFER, taken),
        (MessageType.ACK, taken),
    }
    await made.store.close()
