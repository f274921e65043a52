"""Lists of nodes: all of one is taken or nothing, and the same list once more changes nothing."""

from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from pxeboot.app import _subnets
from pxeboot.inventory.node import Node, unseen_mac
from pxeboot.inventory.store import Store, open_store
from pxeboot.mac import Mac
from pxeboot.web.node_settings import NodeSettings, RefusedEntries, Taken
from pxeboot.web.views import NodeEntry
from tests.parts import make_site

A, B, C = (Mac(f"52:54:00:00:00:0{number}") for number in (1, 2, 3))
MACHINE = UUID(int=77)
ONE, TWO = IPv4Address("127.0.0.11"), IPv4Address("127.0.0.12")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = open_store(tmp_path)
    await opened.use_subnets(_subnets(make_site(tmp_path)))
    yield opened
    await opened.close()


@pytest.fixture
def settings(store: Store, tmp_path: Path) -> NodeSettings:
    return NodeSettings(make_site(tmp_path), store)


def entries(*told: dict[str, Any]) -> list[NodeEntry]:
    return [NodeEntry.model_validate(item) for item in told]


def count(taken: Taken) -> tuple[int, int, int]:
    return len(taken.added), len(taken.changed), taken.unchanged


LIST = entries(
    {
        "mac": A,
        "name": "web1",
        "group": "web",
        "address": str(ONE),
        "options": {"ntp-servers": ["127.0.0.9"]},
    },
    {"mac": B},
    {"uuid": str(MACHINE), "name": "db1", "address": str(TWO)},
)


async def test_the_same_list_once_more_changes_nothing(settings: NodeSettings, store: Store) -> None:
    assert count(await settings.take(LIST)) == (3, 0, 0)
    before = await store.nodes()
    assert {node.name for node in before} == {"web1", "node-525400000002", "db1"}
    assert all(node.known_since for node in before)
    db1 = await store.node_of_uuid(MACHINE)
    assert db1 is not None
    assert (db1.mac, db1.address, db1.by_uuid) == (unseen_mac(MACHINE), TWO, True)
    assert count(await settings.take(LIST)) == (0, 0, 3)
    assert await store.nodes() == before


async def test_what_a_list_does_not_say_stays_as_it_is(settings: NodeSettings, store: Store) -> None:
    await settings.take(LIST)
    await store.save_node(Node(C, "other", known_since=1.0))
    taken = await settings.take(entries({"mac": A, "options": {"42": None, "224": "hex:01"}}))
    assert count(taken) == (0, 1, 0)
    node = await store.node(A)
    assert node is not None
    assert (node.name, node.address, node.options) == ("web1", ONE, {"224": "hex:01"})
    assert await store.node(C) is not None


async def test_a_machine_that_moved_is_meant_by_its_uuid(settings: NodeSettings, store: Store) -> None:
    await settings.take(LIST)
    known = await store.node_of_uuid(MACHINE)
    assert known is not None
    await store.move_node(known.mac, replace(known, mac=C))
    assert count(await settings.take(LIST)) == (0, 0, 3)
    assert (await settings.find(str(MACHINE))).mac == C


async def test_two_nodes_may_exchange_their_names_and_addresses(
    settings: NodeSettings, store: Store, tmp_path: Path
) -> None:
    first = entries(
        {"mac": A, "name": "web1", "address": str(ONE)}, {"mac": B, "name": "web2", "address": str(TWO)}
    )
    await settings.take(first)
    await settings.take(
        entries(
            {"mac": A, "name": "web2", "address": str(TWO)}, {"mac": B, "name": "web1", "address": str(ONE)}
        )
    )
    again = open_store(tmp_path)
    assert [(node.name, node.mac, node.address) for node in await again.nodes()] == [
        ("web1", B, ONE),
        ("web2", A, TWO),
    ]
    await again.close()


@pytest.mark.parametrize(
    ("told", "faults"),
    [
        ([{"mac": A}, {"mac": A}], [(1, "", "is node 1 of the list too")]),
        (
            [{"mac": A, "name": "a"}, {"mac": B, "name": "a"}],
            [(1, "name", "a is also that of node 1 of the list")],
        ),
        ([{"mac": A, "name": "other"}], [(0, "name", "other is also that of other")]),
        ([{"mac": A, "address": "127.0.0.20"}], [(0, "address", "127.0.0.20 is also that of other")]),
        ([{"mac": A, "uuid": str(UUID(int=5))}], [(0, "uuid", f"{UUID(int=5)} is also that of other")]),
        ([{"mac": A, "group": "db"}], [(0, "group", "there is no group 'db'")]),
        ([{"mac": A, "address": "192.0.2.1"}], [(0, "address", "192.0.2.1 is in no configured network")]),
        (
            [{"mac": A, "address": "127.0.0.150"}],
            [(0, "address", f"127.0.0.150 is bound ({B}) at this moment")],
        ),
        ([{"mac": A, "options": {"ntp": "a"}}], [(0, "", "options.ntp: no option has this name")]),
        (
            [{"mac": A, "group": "db"}, {"mac": B}, {"mac": C, "group": "x"}],
            [(0, "group", "there is no group 'db'"), (2, "group", "there is no group 'x'")],
        ),
    ],
)
async def test_where_one_entry_is_wrong_nothing_is_taken(
    settings: NodeSettings, store: Store, told: list[dict[str, Any]], faults: list[tuple[int, str, str]]
) -> None:
    other = Node(C, "other", UUID(int=5), None, IPv4Address("127.0.0.20"), by_uuid=True, known_since=1.0)
    await store.save_node(other)
    await store.bind(IPv4Network("127.0.0.0/8"), B, IPv4Address("127.0.0.150"), 0.0, 1e11)
    with pytest.raises(RefusedEntries) as caught:
        await settings.take(entries({"mac": "52:54:00:00:00:99"}, *told)[1:])
    assert [
        (fault.entry, fault.key, fault.error.partition(";")[0]) for fault in caught.value.faults
    ] == faults
    assert all(fault.hint for fault in caught.value.faults)
    assert await store.nodes() == [other]


async def test_a_node_that_is_as_listed_is_not_checked_anew(settings: NodeSettings, store: Store) -> None:
    """Its group may have left the configuration since: that is no fault of this list."""
    await store.save_node(Node(A, "web1", group="gone", known_since=1.0))
    assert count(await settings.take(entries({"mac": A, "name": "web1", "group": "gone"}))) == (0, 0, 1)
