"""The whole server but for its sockets: datagrams in, replies out, on a real store."""

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from pxeboot.app import _subnets
from pxeboot.config import parse
from pxeboot.dhcp import packet
from pxeboot.dhcp.form import Filled
from pxeboot.dhcp.options import MessageType, encode_options
from pxeboot.dhcp.packet import Packet
from pxeboot.dhcp.responder import Reply, Unicast
from pxeboot.dhcp.service import DhcpService
from pxeboot.dhcp.terms import HELD_SECONDS, PXE_LEASE_SECONDS
from pxeboot.events import Bus
from pxeboot.inventory.lease import LeaseState
from pxeboot.inventory.node import Node, seen, unseen_mac
from pxeboot.inventory.progress import Progress
from pxeboot.inventory.store import Store, open_store
from pxeboot.mac import Mac
from pxeboot.site import Network, Site

SERVER, ELSEWHERE = IPv4Address("10.77.0.1"), IPv4Address("10.77.0.2")
RELAY = IPv4Address("10.88.0.1")
A, B = Mac("52:54:00:00:00:0a"), Mac("52:54:00:00:00:0b")
MACHINE = UUID("00112233-4455-6677-8899-aabbccddeeff")
CONFIG = """
[[network]]
interface = "eth1"
subnet = "10.77.0.0/24"
pool = ["10.77.0.100-10.77.0.199"]
options = { ntp-servers = ["10.77.0.3"], domain-name = "network", "224" = "hex:01" }

[[network]]
subnet = "10.88.0.0/24"
pool = ["10.88.0.100-10.88.0.109", "10.88.0.120"]
router = "10.88.0.1"

[[network]]
subnet = "10.99.0.0/24"
pool = ["10.99.0.100-10.99.0.109"]

[[group]]
name = "web"
image = "web"
match = ["52:54:00:*", "00112233-4455-6677-8899-aabbccddeeff"]
options = { domain-name = "group", domain-search = ["a.example"] }

[[group]]
name = "rest"
image = "web"
match = ["*"]
"""


@dataclass
class Desk:
    """A service, and what it has sent."""

    service: DhcpService
    store: Store
    site: Site
    sent: list[Reply] = field(default_factory=list)

    async def ask(self, kind: MessageType, mac: Mac = A, port: int = 68, **told: Any) -> Reply | None:
        """Send one request; its reply, or None for silence."""
        codes = {"wanted": 50, "chosen": 54, "place": 118}
        carried = {53: bytes((kind,))} | told.pop("options", {})
        carried |= {codes[name]: told.pop(name).packed for name in list(told) if name in codes}
        self.sent.clear()
        request = Packet(1, 1, mac.packed, options=carried, **told)
        await self.service.answer(packet.encode(request), port)
        assert len(self.sent) <= 1
        return self.sent[0] if self.sent else None

    async def get(self, mac: Mac = A, **told: Any) -> IPv4Address:
        """The four packets of a new lease; its address."""
        offered = await self.ask(MessageType.DISCOVER, mac, **told)
        assert offered is not None
        address = offered.packet.yiaddr
        given = await self.ask(MessageType.REQUEST, mac, wanted=address, chosen=SERVER, **told)
        assert kind(given) is MessageType.ACK
        assert given is not None
        assert given.packet.yiaddr == address
        return address

    def reread(self, **changes: str) -> None:
        """Put lines into the configuration: at its top, or in its first network."""
        text = changes.get("top", "") + CONFIG.replace('"eth1"', '"eth1"\n' + changes.get("network", ""))
        site = make_site(text)
        self.site.config, self.site.networks = site.config, site.networks


def make_site(text: str) -> Site:
    config = parse(text)
    return Site(config, tuple(Network(item, SERVER if item.interface else None) for item in config.network))


def kind(reply: Reply | None) -> MessageType | None:
    return reply.packet.message_type if reply else None


def seconds(reply: Reply | None) -> int:
    assert reply is not None
    return int.from_bytes(reply.packet.options[51], "big")


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    site, store = make_site(CONFIG), open_store(tmp_path)
    await store.use_subnets(_subnets(site))
    sent: list[Reply] = []

    def send(reply: Reply | Filled) -> None:
        sent.append(Reply(packet.decode(reply.payload), reply.destination))

    service = DhcpService("eth1", SERVER, site, store, Progress(store, Bus()), {}, send)
    yield Desk(service, store, site, sent)
    await store.close()


PXE: dict[int, bytes] = {60: b"PXEClient:Arch:00000", 93: b"\0\0"}
BY_UUID = {97: b"\0" + MACHINE.bytes_le}


# Who answers when


async def test_a_machine_gets_an_address_and_keeps_it(desk: Desk) -> None:
    address = await desk.get()
    renewed = await desk.ask(MessageType.REQUEST, ciaddr=address)
    assert (kind(renewed), renewed and renewed.destination) == (MessageType.ACK, Unicast(address, 68))
    assert kind(await desk.ask(MessageType.REQUEST, wanted=address)) is MessageType.ACK
    assert await desk.get(options={61: b"\xffanother client"} | PXE) == address


async def test_who_takes_another_servers_offer_leaves_ours(desk: Desk) -> None:
    offered = await desk.ask(MessageType.DISCOVER)
    assert offered is not None
    assert await desk.ask(MessageType.REQUEST, wanted=ELSEWHERE, chosen=ELSEWHERE) is None
    lease = await desk.store.lease_at(offered.packet.yiaddr)
    assert lease is not None
    assert lease.state is LeaseState.RELEASED


async def test_a_lease_is_no_offer_and_stays(desk: Desk) -> None:
    address = await desk.get()
    await desk.ask(MessageType.REQUEST, wanted=ELSEWHERE, chosen=ELSEWHERE)
    lease = await desk.store.lease_at(address)
    assert lease is not None
    assert lease.state is LeaseState.BOUND


@pytest.mark.parametrize(
    ("name", "address", "contradicted"),
    [
        ("wanted", "192.168.1.5", MessageType.NAK),
        ("wanted", "10.77.0.50", MessageType.NAK),
        ("wanted", "10.77.0.150", MessageType.ACK),
        ("ciaddr", "10.77.0.50", MessageType.NAK),
        ("ciaddr", "192.168.1.5", MessageType.NAK),
    ],
)
async def test_an_unknown_machine_is_left_alone_but_by_who_is_authoritative(
    desk: Desk, name: str, address: str, contradicted: MessageType
) -> None:
    claim: dict[str, Any] = {name: IPv4Address(address)}
    assert await desk.ask(MessageType.REQUEST, **claim) is None
    desk.reread(network="authoritative = true")
    assert kind(await desk.ask(MessageType.REQUEST, **claim)) is contradicted


async def test_a_machine_from_another_of_our_networks_is_told_at_once(desk: Desk) -> None:
    assert kind(await desk.ask(MessageType.REQUEST, wanted=IPv4Address("10.88.0.100"))) is MessageType.NAK


async def test_a_renewal_of_our_address_is_granted_after_the_store_was_lost(desk: Desk) -> None:
    address = IPv4Address("10.77.0.150")
    assert kind(await desk.ask(MessageType.REQUEST, ciaddr=address)) is MessageType.ACK
    assert kind(await desk.ask(MessageType.REQUEST, B, ciaddr=address)) is MessageType.NAK


async def test_a_new_reservation_moves_the_machine_at_its_next_packet(desk: Desk) -> None:
    address = await desk.get()
    await desk.store.save_node(Node(A, "web1", address=IPv4Address("10.77.0.7")))
    assert kind(await desk.ask(MessageType.REQUEST, ciaddr=address)) is MessageType.NAK
    assert await desk.get() == IPv4Address("10.77.0.7")


async def test_release_and_decline_are_taken_when_they_are_for_us(desk: Desk) -> None:
    address = await desk.get()
    for message, name in ((MessageType.RELEASE, "ciaddr"), (MessageType.DECLINE, "wanted")):
        claim: dict[str, Any] = {name: address}
        await desk.ask(message, chosen=ELSEWHERE, **claim)
        lease = await desk.store.lease_at(address)
        assert lease is not None
        assert lease.state is LeaseState.BOUND
    await desk.ask(MessageType.DECLINE, wanted=address, chosen=SERVER)
    assert await desk.get() != address
    await desk.ask(MessageType.RELEASE, B, ciaddr=await desk.get(B), chosen=SERVER)
    lease = await desk.store.lease_of(desk.site.networks[0].config.subnet, B)
    assert lease is not None
    assert lease.state is LeaseState.RELEASED


async def test_inform_is_answered_in_its_own_network_only(desk: Desk) -> None:
    told = await desk.ask(MessageType.INFORM, ciaddr=IPv4Address("10.77.0.9"))
    assert kind(told) is MessageType.ACK
    assert await desk.ask(MessageType.INFORM, ciaddr=IPv4Address("192.168.1.5")) is None


# Relays


async def test_a_relay_names_the_network_and_gets_the_reply(desk: Desk) -> None:
    offered = await desk.ask(MessageType.DISCOVER, giaddr=RELAY, hops=2)
    assert offered is not None
    assert (offered.packet.yiaddr, offered.destination) == (IPv4Address("10.88.0.100"), Unicast(RELAY, 67))
    assert offered.packet.options[3] == RELAY.packed


async def test_a_network_may_have_several_pools(desk: Desk) -> None:
    given = [await desk.get(Mac.from_bytes(bytes(5) + bytes((n,))), giaddr=RELAY) for n in range(11)]
    assert given[-2:] == [IPv4Address("10.88.0.109"), IPv4Address("10.88.0.120")]
    assert await desk.ask(MessageType.DISCOVER, giaddr=RELAY) is None  # all are given


async def test_link_selection_holds_over_subnet_selection_and_giaddr(desk: Desk) -> None:
    link = {82: encode_options({1: b"port 7", 5: IPv4Address("10.99.0.1").packed})}
    offered = await desk.ask(MessageType.DISCOVER, giaddr=RELAY, options=link)
    assert offered is not None
    assert (offered.packet.yiaddr, offered.destination) == (IPv4Address("10.99.0.100"), Unicast(RELAY, 67))
    assert offered.packet.options[82] == link[82]
    chosen = await desk.ask(MessageType.DISCOVER, B, giaddr=RELAY, place=IPv4Address("10.99.0.1"))
    assert chosen is not None
    assert (chosen.packet.yiaddr, chosen.packet.options[118]) == (IPv4Address("10.99.0.101"), b"\x0a\x63\0\1")


async def test_a_relay_of_no_network_of_ours_is_not_answered(desk: Desk) -> None:
    assert await desk.ask(MessageType.DISCOVER, giaddr=IPv4Address("192.0.2.1")) is None
    link = {82: encode_options({5: IPv4Address("192.0.2.1").packed})}
    assert await desk.ask(MessageType.DISCOVER, giaddr=RELAY, options=link) is None  # RFC 3527 §3


async def test_a_relays_own_port_is_answered(desk: Desk) -> None:
    asked = {82: encode_options({19: b""})}
    offered = await desk.ask(MessageType.DISCOVER, giaddr=RELAY, options=asked, port=1067)
    assert offered is not None
    assert offered.destination == Unicast(RELAY, 1067)
    unasked = await desk.ask(MessageType.DISCOVER, giaddr=RELAY, port=1067)
    assert unasked is not None
    assert unasked.destination == Unicast(RELAY, 67)


async def test_renewals_go_through_a_relay_that_stands_in_for_us(desk: Desk) -> None:
    override = {82: encode_options({11: RELAY.packed})}
    offered = await desk.ask(MessageType.DISCOVER, giaddr=RELAY, options=override)
    assert offered is not None
    assert offered.packet.options[54] == RELAY.packed
    address = offered.packet.yiaddr
    told: dict[str, Any] = {"giaddr": RELAY, "options": override}
    given = await desk.ask(MessageType.REQUEST, wanted=address, chosen=RELAY, **told)
    assert kind(given) is MessageType.ACK
    assert kind(await desk.ask(MessageType.REQUEST, ciaddr=address, **told)) is MessageType.ACK


async def test_a_machine_behind_a_relay_renews_without_it(desk: Desk) -> None:
    address = await desk.get(giaddr=RELAY)
    renewed = await desk.ask(MessageType.REQUEST, ciaddr=address)
    assert (kind(renewed), renewed and renewed.destination) == (MessageType.ACK, Unicast(address, 68))
    await desk.ask(MessageType.RELEASE, ciaddr=address, chosen=SERVER)
    lease = await desk.store.lease_at(address)
    assert lease is not None
    assert lease.state is LeaseState.RELEASED


# Options and lease times


async def options_of(desk: Desk, mac: Mac) -> dict[int, bytes]:
    offered = await desk.ask(MessageType.DISCOVER, mac)
    assert offered is not None
    return offered.packet.options


async def test_a_nodes_options_hold_over_its_groups_and_those_over_its_networks(desk: Desk) -> None:
    given = await options_of(desk, Mac("00:00:00:00:00:01"))
    assert (given[15], given[42], given[224]) == (b"network", b"\x0a\x4d\0\3", b"\1")
    given = await options_of(desk, A)
    assert (given[15], given[42], given[119]) == (b"group", b"\x0a\x4d\0\3", b"\1a\7example\0")
    await desk.store.save_node(Node(A, "web1", options={"domain-name": "node", "42": "10.0.0.9"}))
    given = await options_of(desk, A)
    assert (given[15], given[42], given[119]) == (b"node", b"\x0a\0\0\x09", b"\1a\7example\0")


async def test_rereading_the_configuration_changes_what_is_given(desk: Desk) -> None:
    assert seconds(await desk.ask(MessageType.DISCOVER)) == 3600
    desk.reread(network="lease_seconds = 90")
    assert seconds(await desk.ask(MessageType.DISCOVER)) == 90


async def test_leases_are_short_until_the_system_runs(desk: Desk) -> None:
    address = await desk.get(options=PXE)
    subnet = desk.site.networks[0].config.subnet
    short = await desk.store.lease_of(subnet, A)
    offered = await desk.ask(MessageType.DISCOVER, options=PXE)
    assert seconds(offered) == PXE_LEASE_SECONDS < 3600
    assert kind(await desk.ask(MessageType.REQUEST, ciaddr=address)) is MessageType.ACK
    long = await desk.store.lease_of(subnet, A)
    assert short is not None
    assert long is not None
    assert 2600 < long.expires - short.expires < 2700


# Identity and unknown machines


async def test_a_machine_announced_by_uuid_is_known_by_any_of_its_cards(desk: Desk) -> None:
    placeholder = unseen_mac(MACHINE)
    reserved = IPv4Address("10.77.0.7")
    await desk.store.save_node(
        Node(placeholder, "db1", MACHINE, address=reserved, by_uuid=True, known_since=1.0)
    )
    assert await desk.get(options=BY_UUID | PXE) == reserved
    assert await desk.get(options={}) == reserved  # its system does not tell the UUID
    assert await desk.store.node(placeholder) is None
    assert await desk.get(B, options=BY_UUID | PXE) == reserved
    moved = await desk.store.node(B)
    assert moved is not None
    assert (moved.name, await desk.store.node(A)) == ("db1", None)


async def test_a_uuid_that_was_only_told_moves_nothing(desk: Desk) -> None:
    await desk.store.save_node(seen(A, MACHINE, Node(A, "web1", known_since=1.0), 2.0))
    await desk.ask(MessageType.DISCOVER, B, options=BY_UUID | PXE)
    named = await desk.store.node(A)
    assert named is not None
    assert named.name == "web1"


async def test_a_card_that_was_named_by_itself_keeps_its_name(desk: Desk) -> None:
    await desk.store.save_node(Node(A, "db1", MACHINE, by_uuid=True, known_since=1.0))
    await desk.store.save_node(Node(B, "web1", known_since=1.0))
    await desk.ask(MessageType.DISCOVER, B, options=BY_UUID | PXE)
    assert {node.mac: node.name for node in await desk.store.nodes()} == {A: "db1", B: "web1"}


async def test_cards_swapped_between_two_machines_swap_their_names(desk: Desk) -> None:
    other = UUID(int=MACHINE.int + 1)
    await desk.store.save_node(Node(A, "db1", MACHINE, by_uuid=True, known_since=1.0))
    await desk.store.save_node(Node(B, "db2", other, by_uuid=True, known_since=1.0))
    await desk.ask(MessageType.DISCOVER, B, options=BY_UUID | PXE)
    await desk.ask(MessageType.DISCOVER, A, options={97: b"\0" + other.bytes_le} | PXE)
    assert {node.mac: node.name for node in await desk.store.nodes()} == {A: "db2", B: "db1"}


STRANGER = Mac("00:00:00:00:00:01")


def told(reply: Reply | None) -> Iterable[int]:
    return reply.packet.options if reply else ()


async def test_an_unknown_machine_is_booted_by_the_group_of_all_others(desk: Desk) -> None:
    assert 67 in told(await desk.ask(MessageType.DISCOVER, STRANGER, options=PXE))


async def test_an_unknown_machine_can_be_ignored(desk: Desk) -> None:
    desk.reread(top='[server]\nunknown = "ignore"\n')
    for message in (MessageType.DISCOVER, MessageType.REQUEST, MessageType.INFORM):
        assert await desk.ask(message, STRANGER, wanted=IPv4Address("10.77.0.100"), options=PXE) is None
    assert await desk.store.node(STRANGER) is None
    assert kind(await desk.ask(MessageType.DISCOVER, A)) is MessageType.OFFER  # a pattern claims it
    await desk.store.save_node(Node(STRANGER, "new1", known_since=1.0))
    assert 67 in told(await desk.ask(MessageType.DISCOVER, STRANGER, options=PXE))


async def test_an_unknown_machine_can_be_held_until_it_is_named(desk: Desk) -> None:
    desk.reread(top='[server]\nunknown = "hold"\n')
    address = await desk.get(STRANGER, options=PXE)
    offered = await desk.ask(MessageType.DISCOVER, STRANGER, options=PXE)
    assert (seconds(offered), 67 in told(offered)) == (HELD_SECONDS, False)
    held = await desk.store.node(STRANGER)
    assert held is not None
    assert (held.known_since, await desk.store.boot(STRANGER)) == (None, None)
    lease = await desk.store.lease_of(desk.site.networks[0].config.subnet, STRANGER)
    assert lease is not None
    named = Node(STRANGER, "new1", known_since=lease.expires - HELD_SECONDS)
    await desk.store.save_node(named)
    assert kind(await desk.ask(MessageType.REQUEST, STRANGER, ciaddr=address)) is MessageType.NAK
    assert await desk.get(STRANGER) == address
    renewed = await desk.ask(MessageType.REQUEST, STRANGER, ciaddr=address)
    assert (kind(renewed), seconds(renewed)) == (MessageType.ACK, 3600)


async def test_a_held_machine_may_renew_while_it_waits(desk: Desk) -> None:
    desk.reread(top='[server]\nunknown = "hold"\n')
    address = await desk.get(STRANGER)
    renewed = await desk.ask(MessageType.REQUEST, STRANGER, ciaddr=address)
    assert (kind(renewed), seconds(renewed)) == (MessageType.ACK, HELD_SECONDS)
