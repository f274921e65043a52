"""The operators' API: what is listed, what is refused and why, and that it describes itself."""

import asyncio
import json
import time
import uuid
from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from pxeboot.app import _subnets
from pxeboot.events import Bus
from pxeboot.inventory.boot import Boot, Stage
from pxeboot.inventory.node import Node
from pxeboot.inventory.overlay import Laid, NodeFile, Overlay
from pxeboot.inventory.store import Store, open_store
from pxeboot.mac import Mac
from pxeboot.metrics import Metric
from pxeboot.web.commands import Commands
from pxeboot.web.operator_api import OperatorApi
from pxeboot.web.views import node_view
from tests.parts import SITE, make_site

MAC = Mac("52:54:00:00:00:01")


@dataclass
class Desk:
    """The operators' API on loopback, and what stands behind it."""

    http: TestClient[web.Request, web.Application]
    store: Store
    bus: Bus

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        async with self.http.request(method, f"/api/v1{path}", json=body) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if text else None


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    site = make_site(tmp_path)
    store, bus = open_store(tmp_path), Bus()
    await store.use_subnets(_subnets(site))
    await store.save_node(Node(MAC, "web1", first_seen=1.0))
    metrics = [Metric("gauge", "nodes", "Nodes.", "stage", lambda: {"ready": 3})]
    api = OperatorApi(site, store, bus, Commands(), metrics)
    async with TestClient(TestServer(api.application())) as http:
        yield Desk(http, store, bus)
    await store.close()


async def test_prometheus_reads_the_metrics(desk: Desk) -> None:
    async with desk.http.get("/metrics") as answer:
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert 'pxeboot_nodes{stage="ready"} 3.0\n' in await answer.text()


async def test_a_node_is_found_by_mac_and_by_name(desk: Desk) -> None:
    for name in (MAC, "web1", "52-54-00-00-00-01"):
        status, told = await desk.ask("GET", f"/nodes/{name}")
        assert (status, told["mac"], told["group"], told["boots"]) == (200, MAC, "web", [])


async def test_an_unknown_node_is_refused_with_a_hint(desk: Desk) -> None:
    status, told = await desk.ask("GET", "/nodes/nobody")
    assert (status, told["error"]) == (409, "there is no node 'nobody'")
    assert "node list" in told["hint"]


async def test_a_node_is_listed_with_its_boot(desk: Desk) -> None:
    boot = Boot.begin("ab" * 8, MAC, "x86 BIOS", 1.0).step(Stage.IMAGE, 5.0, done=1, total=2)
    await desk.store.save_boot(boot)
    _, told = await desk.ask("GET", "/nodes")
    (node,) = told["nodes"]
    assert (node["stage"], node["stage_since"], node["done"], node["total"]) == ("image", 5.0, 1, 2)
    _, told = await desk.ask("GET", "/nodes/web1")
    assert told["boots"][0]["reached"] == {"discover": 1.0, "image": 5.0}


async def test_a_node_can_be_announced_named_and_given_an_address(desk: Desk) -> None:
    status, told = await desk.ask(
        "PATCH", "/nodes/52:54:00:00:00:09", {"name": "web9", "address": "127.0.0.9"}
    )
    assert (status, told["name"], told["reserved"]) == (200, "web9", "127.0.0.9")
    status, told = await desk.ask("PATCH", "/nodes/web9", {"address": None})
    assert (status, told["name"], told["reserved"]) == (200, "web9", None)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"group": "db"}, 409, "there is no group 'db'"),
        ({"address": "192.0.2.1"}, 409, "192.0.2.1 is in no configured network"),
        ({"address": "127.0.0.1"}, 409, "this server's or the router's"),
        ({"address": "127.0.0.100"}, 409, "127.0.0.100 is bound (52:54:00:00:00:02)"),
        ({"name": "web1"}, 409, "the name 'web1' is 52:54:00:00:00:01's"),
        ({"name": "Web 1"}, 400, "name: "),
        ({"nam": "x"}, 400, "nam: "),
        ({"address": "127"}, 400, "address: "),
        ({"uuid": "00000000-0000-0000-0000-000000000000"}, 400, "boards tell that have none"),
        ({"uuid": "x"}, 400, "uuid: "),
        ({"options": {"ntp": "10.0.0.1"}}, 409, "options.ntp: no option has this name"),
        ({"options": {"ntp-servers": "x"}}, 409, "options.ntp-servers: 'x' is not an IPv4 address"),
        ({"options": {"51": 5}}, 409, "options.51: option 51 follows from the network's lease_seconds"),
    ],
)
async def test_a_setting_that_cannot_be_is_refused(
    desk: Desk, body: dict[str, Any], status: int, words: str
) -> None:
    subnet = make_site(Path("/nowhere")).config.network[0].subnet
    await desk.store.bind(subnet, Mac("52:54:00:00:00:02"), IPv4Address("127.0.0.100"), 0.0, 1e12)
    answer = await desk.ask("PATCH", "/nodes/52:54:00:00:00:09", body)
    assert (answer[0], words in answer[1]["error"]) == (status, True)
    assert await desk.store.node(Mac("52:54:00:00:00:09")) is None


UUID = "00112233-4455-6677-8899-aabbccddeeff"


async def test_a_machine_is_announced_by_its_uuid_and_found_by_it(desk: Desk) -> None:
    status, told = await desk.ask("PATCH", f"/nodes/{UUID}", {"name": "db1", "address": "127.0.0.9"})
    assert (status, told["uuid"], told["by_uuid"], told["reserved"]) == (200, UUID, True, "127.0.0.9")
    assert (await desk.ask("GET", f"/nodes/{UUID.upper()}"))[1]["name"] == "db1"
    status, told = await desk.ask("PATCH", "/nodes/web1", {"uuid": UUID})
    assert (status, f"the UUID {UUID} is db1's" in told["error"]) == (409, True)


async def test_a_node_that_told_its_uuid_can_be_named_by_it(desk: Desk) -> None:
    await desk.store.save_node(Node(MAC, "web1", uuid.UUID(UUID), first_seen=1.0))
    _, told = await desk.ask("PATCH", f"/nodes/{UUID}", {"name": "db1"})
    assert (told["mac"], told["name"], told["by_uuid"]) == (MAC, "db1", True)
    _, told = await desk.ask("PATCH", "/nodes/db1", {"uuid": None})
    assert (told["uuid"], told["by_uuid"]) == (None, False)


async def test_a_uuid_that_two_tell_names_neither(desk: Desk) -> None:
    await desk.store.save_node(Node(MAC, "web1", uuid.UUID(UUID)))
    await desk.store.save_node(Node(Mac("52:54:00:00:00:02"), "web2", uuid.UUID(UUID)))
    status, told = await desk.ask("PATCH", f"/nodes/{UUID}", {"name": "db1"})
    assert (status, told["error"]) == (409, "web1, web2 tell the same UUID")


async def test_options_are_set_replaced_and_taken_back(desk: Desk) -> None:
    _, told = await desk.ask(
        "PATCH", "/nodes/web1", {"options": {"ntp-servers": "10.0.0.1", "224": "hex:01"}}
    )
    assert told["options"] == {"ntp-servers": "10.0.0.1", "224": "hex:01"}
    _, told = await desk.ask("PATCH", "/nodes/web1", {"options": {"42": ["10.0.0.2"], "224": None}})
    assert told["options"] == {"42": ["10.0.0.2"]}
    _, told = await desk.ask("PATCH", "/nodes/web1", {"name": "web1"})
    assert told["options"] == {"42": ["10.0.0.2"]}


async def test_who_is_spoken_of_is_known_from_then_on(desk: Desk) -> None:
    await desk.ask("PATCH", "/nodes/web1", {})
    known = await desk.store.node(MAC)
    assert known is not None
    assert known.known_since is not None
    await desk.ask("PATCH", "/nodes/web1", {"name": "web2"})
    again = await desk.store.node(MAC)
    assert again is not None
    assert again.known_since == known.known_since


async def test_held_machines_are_listed_as_discovered(tmp_path: Path) -> None:
    site = make_site(tmp_path, SITE.replace("[server]", '[server]\nunknown = "hold"'))
    store = open_store(tmp_path)
    await store.use_subnets(_subnets(site))
    stranger = Mac("00:00:00:00:00:01")
    for mac, name in ((stranger, "node-1"), (MAC, "node-2")):
        await store.save_node(Node(mac, name, first_seen=1.0))
    assert [(await node_view(node, site, store)).discovered for node in await store.nodes()] == [True, False]
    await store.save_node(Node(stranger, "node-1", first_seen=1.0, known_since=2.0))
    assert [(await node_view(node, site, store)).discovered for node in await store.nodes()] == [False, False]
    await store.close()


async def test_a_forgotten_node_is_gone(desk: Desk) -> None:
    assert await desk.ask("DELETE", "/nodes/web1") == (204, None)
    assert (await desk.ask("GET", "/nodes"))[1] == {"nodes": []}


async def test_status_counts_leases_and_stages(desk: Desk) -> None:
    await desk.store.save_boot(
        Boot.begin("ab" * 8, MAC, "", 1.0).step(Stage.FAILED, 2.0, failure="disk: none")
    )
    _, told = await desk.ask("GET", "/status")
    assert told["nodes_by_stage"] == {"failed": 1}
    assert told["failures"][0]["failure"] == "disk: none"
    assert told["networks"][0]["pool_size"] == 100


async def test_an_address_that_was_put_aside_can_be_given_again(desk: Desk) -> None:
    network, address = IPv4Network("127.0.0.0/8"), IPv4Address("127.0.0.150")
    await desk.store.quarantine(network, address, MAC, time.time())
    _, told = await desk.ask("GET", "/leases")
    (lease,) = [item for item in told["leases"] if item["address"] == str(address)]
    assert (lease["state"], lease["name"]) == ("conflict", "web1")
    assert await desk.ask("DELETE", f"/leases/{address}") == (204, None)
    _, told = await desk.ask("GET", "/leases")
    assert [item["state"] for item in told["leases"] if item["address"] == str(address)] == ["expired"]
    assert (await desk.ask("GET", "/status"))[1]["quarantined"] == []


@pytest.mark.parametrize(
    ("address", "error"),
    [
        ("127.0.0.160", "127.0.0.160 is leased to 52:54:00:00:00:01"),
        ("127.0.0.161", "127.0.0.161 is not put aside"),
        ("10.99.0.1", "10.99.0.1 is not put aside"),
        ("web1", "'web1' is not an IPv4 address"),
    ],
)
async def test_what_is_not_put_aside_is_not_freed(desk: Desk, address: str, error: str) -> None:
    network = IPv4Network("127.0.0.0/8")
    await desk.store.bind(network, MAC, IPv4Address("127.0.0.160"), time.time(), 60.0)
    status, told = await desk.ask("DELETE", f"/leases/{address}")
    assert (status, told["error"]) == (409, error)
    assert told["hint"]


async def test_changes_are_streamed(desk: Desk) -> None:
    async with desk.http.get("/api/v1/events") as answer:
        desk.bus.publish("boot", mac=MAC, stage="ready")
        lines = [await asyncio.wait_for(answer.content.readline(), 5) for _ in range(2)]
    assert lines == [b"event: boot\n", b'data: {"mac": "52:54:00:00:00:01", "stage": "ready"}\n']


async def test_the_api_describes_every_route(desk: Desk) -> None:
    _, told = await desk.ask("GET", "/openapi.json")
    assert told["openapi"] == "3.1.0"
    assert set(told["paths"]["/api/v1/nodes/{node}"]) == {"get", "patch", "delete"}
    text = json.dumps(told)
    references = {part.split('"')[0] for part in text.split('"#/components/schemas/')[1:]}
    assert references <= set(told["components"]["schemas"])


async def test_a_list_of_nodes_is_taken_or_refused_with_each_fault(desk: Desk) -> None:
    nodes = [{"mac": "52:54:00:00:00:21", "name": "web21"}, {"mac": MAC, "group": "web"}, {"mac": MAC}]
    assert await desk.ask("POST", "/nodes", {"nodes": nodes[:2]}) == (
        200,
        {"added": 1, "changed": 1, "unchanged": 0},
    )
    status, told = await desk.ask("POST", "/nodes", {"nodes": nodes})
    assert (status, told["error"]) == (409, "1 of 3 nodes cannot be taken; nothing was changed")
    assert [(fault["entry"], fault["error"]) for fault in told["faults"]] == [
        (2, "is node 2 of the list too")
    ]
    status, told = await desk.ask("POST", "/nodes", {"nodes": [{"name": "a"}]})
    assert (status, told["error"].partition(":")[0]) == (400, "nodes.0")


async def test_nonsense_as_a_body_is_refused(desk: Desk) -> None:
    async with desk.http.patch("/api/v1/nodes/web1", data=b"\xff{") as answer:
        assert answer.status == 400


async def test_words_and_files_of_a_node_are_set_and_taken_back_one_by_one(desk: Desk) -> None:
    motd, key = ({"data": b64encode(data).decode(), "mode": 0o600} for data in (b"hello", b"secret"))
    _, told = await desk.ask(
        "PATCH", "/nodes/web1", {"vars": {"a": "1", "b": "2"}, "files": {"/etc/motd": motd, "/etc/key": key}}
    )
    assert (told["vars"], told["files"]) == ({"a": "1", "b": "2"}, {"/etc/motd": 5, "/etc/key": 6})
    assert "secret" not in json.dumps(told)
    await desk.ask("PATCH", "/nodes/web1", {"vars": {"a": None}, "files": {"/etc/key": None}})
    node = await desk.store.node(MAC)
    assert node is not None
    assert node.overlay == Overlay({"b": "2"}, {"/etc/motd": NodeFile(b"hello", Laid(mode=0o600))})
    _, told = await desk.ask("PATCH", "/nodes/web1", {"name": "web2"})
    assert (told["name"], told["vars"], told["files"]) == ("web2", {"b": "2"}, {"/etc/motd": 5})


@pytest.mark.parametrize(
    ("patch", "status", "error"),
    [
        ({"vars": {"name": "x"}}, 400, "'name' is given by pxeboot itself"),
        ({"files": {"etc/x": {"data": ""}}}, 400, "'etc/x' is not an absolute path inside the image"),
        ({"files": {"/etc/x": {"data": "%"}}}, 400, "files./etc/x.data: "),
        ({"files": {"/etc/x": {"data": b64encode(bytes(600_000)).decode()}}}, 200, ""),
        ({"files": {"/etc/y": {"data": b64encode(bytes(500_000)).decode()}}}, 409, "1100000 bytes of files"),
    ],
)
async def test_words_and_files_that_cannot_be_are_refused(
    desk: Desk, patch: dict[str, Any], status: int, error: str
) -> None:
    if status == 409:
        await desk.ask(
            "PATCH", "/nodes/web1", {"files": {"/x": {"data": b64encode(bytes(600_000)).decode()}}}
        )
    got, told = await desk.ask("PATCH", "/nodes/web1", patch)
    assert (got, error in told.get("error", "")) == (status, True)
