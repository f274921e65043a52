"""The operators' API, version 1: on the admin listener and on the Unix socket (design.md, section 5)."""

import json
import logging
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from ipaddress import IPv4Address
from typing import Any

from aiohttp import web
from pydantic import BaseModel, ValidationError

from pxeboot.errors import PxebootError
from pxeboot.events import Bus
from pxeboot.inventory.lease import Lease
from pxeboot.inventory.store import Store
from pxeboot.metrics import CONTENT_TYPE, Metric, exposition
from pxeboot.site import Site
from pxeboot.web.commands import Commands
from pxeboot.web.node_settings import NodeSettings, RefusedEntries
from pxeboot.web.route import Handler, Route
from pxeboot.web.route import as_json as _json
from pxeboot.web.service_api import FindBalancer, ServiceApi
from pxeboot.web.views import (
    CommandRequest,
    ImportResult,
    LeaseList,
    NodeDetail,
    NodeImport,
    NodeList,
    NodePatch,
    NodeView,
    Problem,
    Status,
    lease_list,
    node_detail,
    node_view,
    status_of,
)

log = logging.getLogger(__name__)

KEEPALIVE_SECONDS = 15.0
MAX_REQUEST_BYTES = 16 << 20
"""A list of some 100 000 nodes."""
_PATH_PARAMETERS = {
    "node": "a MAC address, a UUID or a name",
    "address": "an IPv4 address",
    "service": "the name of a [[service]]",
}


class OperatorApi:
    """The operators' routes and what they need."""

    def __init__(
        self,
        site: Site,
        store: Store,
        bus: Bus,
        commands: Commands,
        metrics: list[Metric],
        dropped: Callable[[], Mapping[str, int]] = dict,
        balancer: FindBalancer = lambda: None,
    ) -> None:
        """`dropped` tells how many DHCP requests were not answered, by interface."""
        self._dropped = dropped
        self._site = site
        self._store = store
        self._bus = bus
        self._commands = commands
        self._metrics = metrics
        self._settings = NodeSettings(site, store)
        self._services = ServiceApi(site, store, bus, balancer, self._settings.find)
        self.routes = (
            Route("GET", "/status", "Networks, leases and nodes in numbers", None, Status, self.status),
            Route("GET", "/leases", "Leases of the served networks", None, LeaseList, self.leases),
            Route("DELETE", "/leases/{address}", "Give an address again that is put aside because somebody "
                  "has it without a lease", None, None, self.free_address),
            Route("GET", "/nodes", "All nodes", None, NodeList, self.nodes),
            Route("POST", "/nodes", "Set many nodes, all that are listed or none", NodeImport, ImportResult,
                  self.import_nodes),
            Route("GET", "/nodes/{node}", "A node and its last boots", None, NodeDetail, self.node),
            Route("PATCH", "/nodes/{node}", "Name a node, put it into a group, reserve its address, set DHCP "
                  "options; a MAC address or UUID not seen yet is announced by this", NodePatch, NodeView,
                  self.set_node),
            Route("DELETE", "/nodes/{node}", "Forget a node and its boots", None, None, self.forget_node),
            Route("POST", "/nodes/{node}/command", "Have the node's agent do something", CommandRequest, None,
                  self.command),
            *self._services.routes,
            Route("GET", "/events", "Changes as server-sent events", None, None, self.events),
        )  # fmt: skip

    def application(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(middlewares=[_faults_as_json], client_max_size=MAX_REQUEST_BYTES)
        for route in self.routes:
            app.router.add_route(route.method, f"/api/v1{route.path}", route.handler)
        app.router.add_get("/api/v1/openapi.json", self.openapi)
        app.router.add_get("/metrics", self.metrics)
        return app

    async def status(self, request: web.Request) -> web.StreamResponse:
        return _json(await status_of(self._site, self._store, self._dropped(), await self._services.views()))

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

    async def import_nodes(self, request: web.Request) -> web.StreamResponse:
        told = NodeImport.model_validate_json(await request.read())
        taken = await self._settings.take(told.nodes)
        for node in (*taken.added, *taken.changed):
            self._bus.publish("node", mac=node.mac)
        result = ImportResult(added=len(taken.added), changed=len(taken.changed), unchanged=taken.unchanged)
        log.info("nodes imported: %d added, %d changed, %d as before", *result.model_dump().values())
        return _json(result)

    async def node(self, request: web.Request) -> web.StreamResponse:
        node = await self._settings.find(request.match_info["node"])
        return _json(await node_detail(node, self._site, self._store))

    async def set_node(self, request: web.Request) -> web.StreamResponse:
        patch = NodePatch.model_validate_json(await request.read())
        node = await self._settings.set(request.match_info["node"], patch)
        self._bus.publish("node", mac=node.mac)
        log.info("%s: set to name %s, group %s, address %s", node.mac, node.name, node.group, node.address)
        return _json(await node_view(node, self._site, self._store))

    async def forget_node(self, request: web.Request) -> web.StreamResponse:
        node = await self._settings.find(request.match_info["node"])
        await self._store.forget_node(node.mac)
        self._bus.publish("node", mac=node.mac)
        log.info("%s: forgotten", node.mac)
        return web.Response(status=204)

    async def command(self, request: web.Request) -> web.StreamResponse:
        told = CommandRequest.model_validate_json(await request.read())
        node = await self._settings.find(request.match_info["node"])
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

    async def metrics(self, request: web.Request) -> web.StreamResponse:
        """For Prometheus."""
        return web.Response(body=await exposition(self._metrics), headers={"Content-Type": CONTENT_TYPE})

    async def openapi(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(openapi_document(self.routes))


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
        faults = list(error.faults) if isinstance(error, RefusedEntries) else []
        return _json(Problem(error=str(error), hint=error.hint, faults=faults), status=409)
    except OSError as error:
        log.error("%s %s: %s", request.method, request.path, error)
        return _json(Problem(error=str(error), hint="see the server's log"), status=503)


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
