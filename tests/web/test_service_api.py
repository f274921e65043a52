"""What operators say of services, kept though no kernel is there to do it."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from pxeboot.app import _subnets
from pxeboot.events import Bus
from pxeboot.inventory.node import Node
from pxeboot.inventory.store import Store, open_store
from pxeboot.mac import Mac
from pxeboot.web.commands import Commands
from pxeboot.web.operator_api import OperatorApi
from tests.parts import SITE, make_site

MAC, OTHER = Mac("52:54:00:00:00:01"), Mac("00:00:5e:00:53:01")
SERVICES = """
[[service]]
name = "www"
vip = "10.0.0.1"
port = 80
group = "web"
[[service]]
name = "tls"
vip = "10.0.0.1"
port = 443
group = "web"
"""


@dataclass
class Desk:
    http: TestClient[web.Request, web.Application]
    store: Store

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        async with self.http.request(method, f"/api/v1{path}", json=body) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if text else None

    async def drained(self) -> set[str]:
        return {service for _, service in await self.store.drains()}


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    site, store = make_site(tmp_path, SITE.replace("127.0.0.", "10.0.0.") + SERVICES), open_store(tmp_path)
    await store.use_subnets(_subnets(site))
    await store.save_node(Node(MAC, "web1", first_seen=1.0))
    await store.save_node(Node(OTHER, "printer", first_seen=1.0))
    api = OperatorApi(site, store, Bus(), Commands(), [])
    async with TestClient(TestServer(api.application())) as http:
        yield Desk(http, store)
    await store.close()


async def test_services_are_listed_as_configured(desk: Desk) -> None:
    status, told = await desk.ask("GET", "/services")
    assert status == 200
    assert [(item["name"], item["port"], item["up"]) for item in told["services"]] == [
        ("www", 80, False),
        ("tls", 443, False),
    ]
    assert (await desk.ask("GET", "/services/www"))[1]["servers"] == []
    assert len((await desk.ask("GET", "/status"))[1]["services"]) == 2


async def test_a_node_is_drained_of_all_or_of_one(desk: Desk) -> None:
    assert (await desk.ask("POST", "/nodes/web1/drain", {}))[0] == 200
    since = dict(await desk.store.drains())
    await desk.ask("POST", "/nodes/web1/drain", {})
    assert await desk.store.drains() == since  # its time does not begin anew
    await desk.ask("POST", "/nodes/web1/undrain", {})
    assert await desk.drained() == set()
    await desk.ask("POST", "/nodes/web1/drain", {"service": "tls"})
    assert await desk.drained() == {"tls"}


async def test_to_undrain_one_service_leaves_the_others_drained(desk: Desk) -> None:
    await desk.ask("POST", "/nodes/web1/drain", {})
    await desk.ask("POST", "/nodes/web1/undrain", {"service": "www"})
    assert await desk.drained() == {"tls"}
    await desk.ask("POST", "/nodes/web1/undrain", {})
    assert await desk.drained() == set()


@pytest.mark.parametrize(
    ("path", "body", "error"),
    [
        ("/nodes/nobody/drain", {}, "there is no node 'nobody'"),
        ("/nodes/web1/drain", {"service": "ftp"}, "there is no service 'ftp'"),
        ("/nodes/printer/drain", {}, "printer is behind no service"),
        ("/nodes/printer/undrain", {"service": "www"}, "printer is behind no service"),
    ],
)
async def test_what_cannot_be_drained_is_refused(desk: Desk, path: str, body: Any, error: str) -> None:
    status, told = await desk.ask("POST", path, body)
    assert (status, told["error"]) == (409, error)
    assert told["hint"]


async def test_the_address_of_a_service_is_reserved_for_no_node(desk: Desk) -> None:
    status, told = await desk.ask("PATCH", "/nodes/web1", {"address": "10.0.0.1"})
    assert (status, told["error"]) == (409, "10.0.0.1 is a service's")


async def test_the_routes_describe_themselves(desk: Desk) -> None:
    _, told = await desk.ask("GET", "/openapi.json")
    assert {"/api/v1/services", "/api/v1/services/{service}", "/api/v1/services/clear"} <= told[
        "paths"
    ].keys()
    drain = told["paths"]["/api/v1/nodes/{node}/drain"]["post"]
    assert drain["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith("DrainRequest")
