"""The operators' routes of the virtual services."""

import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

from aiohttp import web

from pxeboot.balancer.roster import Roster
from pxeboot.balancer.service import ServiceConfig
from pxeboot.balancer.table import Entry, ServiceKey
from pxeboot.errors import PxebootError
from pxeboot.events import Bus
from pxeboot.inventory.node import Node, group_of
from pxeboot.inventory.store import Store
from pxeboot.mac import Mac
from pxeboot.site import Site
from pxeboot.web.route import Route, as_json
from pxeboot.web.service_views import (
    Cleared,
    DrainRequest,
    NodeService,
    NodeServices,
    ServiceDetail,
    ServiceList,
    ServiceView,
    node_service,
    service_detail,
    service_view,
)

if TYPE_CHECKING:
    from pxeboot.balancer.loop import Balancer

log = logging.getLogger(__name__)

FindBalancer = Callable[[], "Balancer | None"]


class ServiceApi:
    """What operators see and say of services."""

    def __init__(
        self,
        site: Site,
        store: Store,
        bus: Bus,
        balancer: FindBalancer,
        find: Callable[[str], Awaitable[Node]],
    ) -> None:
        """`balancer` gives the one that runs, None where there is no service; `find` a node by its name."""
        self._site = site
        self._store = store
        self._bus = bus
        self._balancer = balancer
        self._find = find
        self.routes = (
            Route("GET", "/services", "All virtual services", None, ServiceList, self.services),
            Route("GET", "/services/{service}", "A service, its servers", None, ServiceDetail, self.service),
            Route("POST", "/services/clear", "Take all services of ours out of the kernel, until the "
                  "configuration is read again", None, Cleared, self.clear),
            Route("GET", "/nodes/{node}/services", "A node in its services", None, NodeServices, self.of),
            Route("POST", "/nodes/{node}/drain", "Give the node no new connections", DrainRequest,
                  NodeServices, self.drain),
            Route("POST", "/nodes/{node}/undrain", "Put the node into service again", DrainRequest,
                  NodeServices, self.undrain),
        )  # fmt: skip

    async def views(self) -> list[ServiceView]:
        """All services, in the configuration's order."""
        table = await self._table()
        return [
            service_view(
                config, self._roster(config), table.get(ServiceKey.of(config)), self._trouble(config)
            )
            for config in self._site.config.service
        ]

    async def services(self, request: web.Request) -> web.StreamResponse:
        balancer = self._balancer()
        cleared = balancer is not None and balancer.cleared
        return as_json(ServiceList(services=await self.views(), cleared=cleared))

    async def service(self, request: web.Request) -> web.StreamResponse:
        config = self._configured(request.match_info["service"])
        table = await self._table()
        entry = table.get(ServiceKey.of(config))
        return as_json(service_detail(config, self._roster(config), entry, self._trouble(config)))

    async def clear(self, request: web.Request) -> web.StreamResponse:
        balancer = self._balancer()
        gone = await balancer.clear() if balancer is not None else []
        return as_json(Cleared(services=[str(key) for key in gone]))

    async def of(self, request: web.Request) -> web.StreamResponse:
        return as_json(self._standing(await self._find(request.match_info["node"])))

    async def drain(self, request: web.Request) -> web.StreamResponse:
        return await self._set_drain(request, time.time())

    async def undrain(self, request: web.Request) -> web.StreamResponse:
        return await self._set_drain(request, None)

    async def _set_drain(self, request: web.Request, since: float | None) -> web.StreamResponse:
        told = DrainRequest.model_validate_json(await request.read() or b"{}")
        node = await self._find(request.match_info["node"])
        if told.service is not None:
            self._configured(told.service)
        self._refuse_outsiders(node, told.service)
        drains = await self._store.drains()
        if since is not None:
            since = drains.get((node.mac, told.service or ""), since)  # it goes on since it began
            await self._store.save_drain(node.mac, told.service or "", since)
        else:
            await self._take_back(node, told.service, drains.keys())
        log.info(
            "%s: %s%s",
            node.mac,
            "drained" if since is not None else "no longer drained",
            f" of {told.service}" if told.service else "",
        )
        self._bus.publish("node", mac=node.mac)
        balancer = self._balancer()
        if balancer is not None:
            await balancer.round()
        return as_json(self._standing(node))

    async def _take_back(self, node: Node, service: str | None, drains: Iterable[tuple[Mac, str]]) -> None:
        """Of all services: every drain of the node. Of one: that one's, and the others' where all were."""
        drains = [drain for drain in drains if drain[0] == node.mac]
        of_all = (node.mac, "") in drains
        if service is not None and of_all:
            now = time.time()
            for config in self._services_of(node):
                if config.name != service:
                    await self._store.save_drain(node.mac, config.name, now)
        for mac, name in drains:
            if service is None or name in ("", service):
                await self._store.save_drain(mac, name, None)

    def _refuse_outsiders(self, node: Node, service: str | None) -> None:
        names = [config.name for config in self._services_of(node)]
        if not names:
            raise PxebootError(f"{node.name} is behind no service", "services name the group of their nodes")
        if service is not None and service not in names:
            raise PxebootError(f"{node.name} is not behind {service!r}", f"it is behind: {', '.join(names)}")

    def _services_of(self, node: Node) -> list[ServiceConfig]:
        group = group_of(node, self._site.config)
        return [item for item in self._site.config.service if group is not None and item.group == group.name]

    def _standing(self, node: Node) -> NodeServices:
        found: list[NodeService] = []
        for config in self._site.config.service:
            roster = self._roster(config)
            places = roster.places if roster is not None else ()
            found += [node_service(config, place) for place in places if place.mac == node.mac]
        return NodeServices(node=node.name, mac=node.mac, services=found)

    def _configured(self, name: str) -> ServiceConfig:
        for config in self._site.config.service:
            if config.name == name:
                return config
        known = ", ".join(config.name for config in self._site.config.service) or "none"
        raise PxebootError(f"there is no service {name!r}", f"the configuration has: {known}")

    def _roster(self, config: ServiceConfig) -> Roster | None:
        balancer = self._balancer()
        standing = balancer.standings.get(config.name) if balancer is not None else None
        return standing.roster if standing is not None else None

    def _trouble(self, config: ServiceConfig) -> PxebootError | None:
        balancer = self._balancer()
        return balancer.trouble(config.name) if balancer is not None else None

    async def _table(self) -> dict[ServiceKey, Entry]:
        balancer = self._balancer()
        return await balancer.table() if balancer is not None else {}
