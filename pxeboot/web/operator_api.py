"""The operators' API, version 1: on the admin listener and on the Unix socket (design.md, section 5)."""

import contextlib
import json
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from ipaddress import IPv4Address
from typing import Any, Literal
from uuid import UUID

from aiohttp import web
from pydantic import BaseModel, ValidationError

from pxeboot.dhcp import custom
from pxeboot.errors import PxebootError
from pxeboot.events import Bus
from pxeboot.inventory.lease import Lease
from pxeboot.inventory.node import Node, default_name, unseen_mac
from pxeboot.inventory.store import Store
from pxeboot.mac import Mac
from pxeboot.site import Site
from pxeboot.web.commands import Commands
from pxeboot.web.views import (
    CommandRequest,
    LeaseList,
    NodeDetail,
    NodeList,
    NodePatch,
    NodeView,
    Problem,
    Status,
    lease_list,
    machine_uuid,
    node_detail,
    node_view,
    status_of,
)

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
KEEPALIVE_SECONDS = 15.0
_PATH_PARAMETERS = {"node": "a MAC address, a UUID or a name", "address": "an IPv4 address"}
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Route:
    """One operation: what it takes, what it gives, and who does it. The OpenAPI document is made of these."""

    method: Literal["GET", "PATCH", "DELETE", "POST"]
    path: str
    summary: str
    takes: type[BaseModel] | None
    gives: type[BaseModel] | None
    handler: Handler


class OperatorApi:
    """The operators' routes and what they need."""

    def __init__(self, site: Site, store: Store, bus: Bus, commands: Commands) -> None:
        self._site = site
        self._store = store
        self._bus = bus
        self._commands = commands
        self.routes = (
            Route("GET", "/status", "Networks, leases and nodes in numbers", None, Status, self.status),
            Route("GET", "/leases", "Leases of the served networks", None, LeaseList, self.leases),
            Route("DELETE", "/leases/{address}", "Give an address again that is put aside because somebody "
                  "has it without a lease", None, None, self.free_address),
            Route("GET", "/nodes", "All nodes", None, NodeList, self.nodes),
            Route("GET", "/nodes/{node}", "A node and its last boots", None, NodeDetail, self.node),
            Route("PATCH", "/nodes/{node}", "Name a node, put it into a group, reserve its address, set DHCP "
                  "options; a MAC address or UUID not seen yet is announced by this", NodePatch, NodeView,
                  self.set_node),
            Route("DELETE", "/nodes/{node}", "Forget a node and its boots", None, None, self.forget_node),
            Route("POST", "/nodes/{node}/command", "Have the node's agent do something", CommandRequest, None,
                  self.command),
            Route("GET", "/events", "Changes as server-sent events", None, None, self.events),
        )  # fmt: skip

    def application(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(middlewares=[_faults_as_json])
        for route in self.routes:
            app.router.add_route(route.method, f"/api/v1{route.path}", route.handler)
        app.router.add_get("/api/v1/openapi.json", self.openapi)
        return app

    async def status(self, request: web.Request) -> web.StreamResponse:
        return _json(await status_of(self._site, self._store))

    async def leases(self, request: web.Request) -> web.StreamResponse:
        return _json(await lease_list(self._store))

    async def free_address(self, request: web.Request) -> web.StreamResponse:
        address = _ipv4(request.match_info["address"])
        network = self._site.network_of(address)
        lease, now = await self._store.lease_at(address), time.time()
        lifted = network and lease and await self._store.lift(network.config.subnet, address, now)
        if not lifted:
            raise _not_put_aside(address, lease, now)
        log.info("%s: is given again, says an operator", address)
        return web.Response(status=204)

    async def nodes(self, request: web.Request) -> web.StreamResponse:
        views = [await node_view(node, self._site, self._store) for node in await self._store.nodes()]
        return _json(NodeList(nodes=views))

    async def node(self, request: web.Request) -> web.StreamResponse:
        node = await self._find(request.match_info["node"])
        return _json(await node_detail(node, self._site, self._store))

    async def set_node(self, request: web.Request) -> web.StreamResponse:
        patch = NodePatch.model_validate_json(await request.read())
        name = request.match_info["node"]
        node = _patched(await self._look_up(name) or _announced(name), patch, time.time())
        uuid = _uuid(name)
        if uuid is not None:
            node = replace(node, uuid=uuid, by_uuid=True)
        await self._check(node)
        await self._store.save_node(node)
        self._bus.publish("node", mac=node.mac)
        log.info("%s: set to name %s, group %s, address %s", node.mac, node.name, node.group, node.address)
        return _json(await node_view(node, self._site, self._store))

    async def forget_node(self, request: web.Request) -> web.StreamResponse:
        node = await self._find(request.match_info["node"])
        await self._store.forget_node(node.mac)
        self._bus.publish("node", mac=node.mac)
        log.info("%s: forgotten", node.mac)
        return web.Response(status=204)

    async def command(self, request: web.Request) -> web.StreamResponse:
        told = CommandRequest.model_validate_json(await request.read())
        node = await self._find(request.match_info["node"])
        await self._commands.give(node.mac, told.command)
        return web.Response(status=204)

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events: `event` is the kind, `data` the JSON; a comment now and then keeps it open."""
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
        )
        async with self._bus.subscribe() as subscription:
            await response.prepare(request)
            while True:
                event = await subscription.next(KEEPALIVE_SECONDS)
                line = (
                    ":\n\n" if event is None else f"event: {event.kind}\ndata: {json.dumps(event.about)}\n\n"
                )
                try:
                    await response.write(line.encode())
                except ConnectionError:
                    return response

    async def openapi(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(openapi_document(self.routes))

    async def _look_up(self, name: str) -> Node | None:
        with contextlib.suppress(ValueError):
            return await self._store.node(Mac.parse(name))
        nodes = await self._store.nodes()
        uuid = _uuid(name)
        if uuid is None:
            return next((node for node in nodes if node.name == name), None)
        return await self._store.node_of_uuid(uuid) or _only([node for node in nodes if node.uuid == uuid])

    async def _find(self, name: str) -> Node:
        node = await self._look_up(name)
        if node is None:
            raise PxebootError(f"there is no node {name!r}", "`pxeboot node list` shows names and addresses")
        return node

    async def _check(self, node: Node) -> None:
        """Refuse what the configuration contradicts. Raises PxebootError."""
        if node.group is not None and self._site.config.group_named(node.group) is None:
            known = ", ".join(group.name for group in self._site.config.group) or "none"
            raise PxebootError(f"there is no group {node.group!r}", f"the configuration has: {known}")
        if node.address is None:
            return
        network = self._site.network_of(node.address)
        if network is None:
            raise PxebootError(
                f"{node.address} is in no configured network", "choose one in a subnet of ours"
            )
        if node.address in (network.address, network.config.router):
            raise PxebootError(f"{node.address} is this server's or the router's", "choose another address")
        lease = await self._store.lease_at(node.address)
        if lease is not None and not lease.free_for(node.mac, time.time()):
            raise PxebootError(
                f"{node.address} is {lease.state.value} ({lease.mac}) at this moment",
                "choose another address, or wait until it is free",
            )


def _ipv4(text: str) -> IPv4Address:
    """Raises PxebootError."""
    try:
        return IPv4Address(text)
    except ValueError:
        raise PxebootError(f"{text!r} is not an IPv4 address", "write one, like 10.77.0.100") from None


def _not_put_aside(address: IPv4Address, lease: Lease | None, now: float) -> PxebootError:
    """Why an address cannot be given again by an operator's word."""
    if lease is not None and lease.active(now):
        return PxebootError(
            f"{address} is leased to {lease.mac}", "its machine may be using it: its lease ends by itself"
        )
    return PxebootError(
        f"{address} is not put aside",
        "`pxeboot status` shows which addresses somebody has without a lease",
    )


def _patched(node: Node, patch: NodePatch, now: float) -> Node:
    """The node as the operator wants it, and known from now on. Raises PxebootError."""
    changes = patch.model_dump(exclude_unset=True)
    if "uuid" in changes:
        changes["by_uuid"] = changes["uuid"] is not None
    if "options" in changes:
        changes["options"] = _merged(node.options, changes["options"])
    return replace(node, **changes, known_since=node.known_since or now)


def _merged(options: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """Options with some replaced and, where null, taken back. Raises PxebootError."""
    try:
        changed = {custom.code_of(name) for name in patch}
        kept = {name: value for name, value in options.items() if custom.code_of(name) not in changed}
        merged = kept | {name: value for name, value in patch.items() if value is not None}
        custom.encode_all(merged)
    except ValueError as error:
        name, _, reason = str(error).partition(": ")
        raise PxebootError(f"options.{name}: {reason}", custom.remedy(name)) from None
    return merged


def _uuid(name: str) -> UUID | None:
    """A UUID, None for what is not written like one. Raises PxebootError for one that is no machine's."""
    try:
        return machine_uuid(UUID(name)) if _UUID.fullmatch(name.lower()) else None
    except ValueError as error:
        raise PxebootError(str(error), "name the machine by its MAC address") from None


def _only(nodes: list[Node]) -> Node | None:
    if len(nodes) > 1:
        names = ", ".join(node.name for node in nodes)
        raise PxebootError(f"{names} tell the same UUID", "name one of them by its MAC address")
    return nodes[0] if nodes else None


def _announced(name: str) -> Node:
    """A node that has not shown itself yet. Raises PxebootError."""
    uuid = _uuid(name)
    try:
        mac = unseen_mac(uuid) if uuid else Mac.parse(name)
    except ValueError:
        raise PxebootError(
            f"there is no node {name!r}",
            "announce a new one by its MAC address, like 52:54:00:12:34:56, or its UUID",
        ) from None
    return Node(mac, default_name(mac), uuid)


@web.middleware
async def _faults_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Operators' errors as `{"error", "hint"}`: 400 for words, 409 for a state that does not allow it."""
    try:
        return await handler(request)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        return _json(Problem(error=f"{place}: {first['msg']}", hint="see /api/v1/openapi.json"), status=400)
    except PxebootError as error:
        return _json(Problem(error=str(error), hint=error.hint), status=409)
    except OSError as error:
        log.error("%s %s: %s", request.method, request.path, error)
        return _json(Problem(error=str(error), hint="see the server's log"), status=503)


def _json(model: BaseModel, status: int = 200) -> web.Response:
    return web.Response(text=model.model_dump_json(), content_type="application/json", status=status)


def openapi_document(routes: tuple[Route, ...]) -> dict[str, Any]:
    """An OpenAPI 3.1 description of these routes."""
    schemas: dict[str, Any] = {}
    paths: dict[str, Any] = {}
    for route in routes:
        operation: dict[str, Any] = {"summary": route.summary, "responses": {}}
        parameters = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}, "description": words}
            for name, words in _PATH_PARAMETERS.items()
            if f"{{{name}}}" in route.path
        ]
        if parameters:
            operation["parameters"] = parameters
        if route.takes is not None:
            operation["requestBody"] = {"required": True, **_content(route.takes, schemas)}
        answer = {"description": "done"} | (_content(route.gives, schemas) if route.gives else {})
        operation["responses"]["200" if route.gives or route.path == "/events" else "204"] = answer
        operation["responses"]["default"] = {"description": "refused", **_content(Problem, schemas)}
        paths.setdefault(f"/api/v1{route.path}", {})[route.method.lower()] = operation
    info = {"title": "pxeboot", "version": version("pxeboot")}
    return {"openapi": "3.1.0", "info": info, "paths": paths, "components": {"schemas": schemas}}


def _content(model: type[BaseModel], schemas: dict[str, Any]) -> dict[str, Any]:
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(schema.pop("$defs", {}))
    schemas[model.__name__] = schema
    return {"content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}}}
