"""What nodes ask over HTTP: boot scripts, artefacts, events, commands (design.md, section 5)."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from ipaddress import IPv4Address
from typing import Literal

from aiohttp import web
from pydantic import BaseModel, Field, ValidationError

from pxeboot.balancer import equipment
from pxeboot.errors import PxebootError
from pxeboot.image.bootfiles import BootFiles
from pxeboot.image.library import Image, Library
from pxeboot.inventory.boot import Boot, Stage, WrongStep
from pxeboot.inventory.node import group_of
from pxeboot.inventory.progress import Progress
from pxeboot.inventory.store import Store
from pxeboot.mac import Mac
from pxeboot.orders import Orders, Refusal
from pxeboot.pxe.script import ipxe_refusal, ipxe_script
from pxeboot.site import Site
from pxeboot.web.admission import Turn
from pxeboot.web.commands import Commands
from pxeboot.web.downloads import Downloads
from pxeboot.web.images import LoaderFile, send_artefact, send_loader
from pxeboot.web.limits import BODY_SECONDS, EventRate
from pxeboot.web.overlays import PRIVILEGED_PORTS, Overlays
from pxeboot.web.scripts import text_answer
from pxeboot.web.token import LIFETIME_SECONDS, RENEW_SECONDS, Claim, TokenRefusedError, sign, verify

log = logging.getLogger(__name__)

MAX_EVENT_BYTES = 16384
_STAGE_OF_ARTEFACT = {"kernel": Stage.KERNEL, "initrd": Stage.INITRD}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class NodeEvent(BaseModel, frozen=True, extra="ignore"):
    """What a node tells of itself. `done` and `total` are bytes of what the stage loads."""

    stage: Literal["network", "image", "root", "ready", "rebooting", "failed"]
    detail: str = Field(default="", max_length=2000)
    done: int = Field(default=0, ge=0)
    total: int = Field(default=0, ge=0)
    services: str = Field(default="", max_length=8192)
    """What it has set up for the services of its group (`balancer.equipment`)."""


@dataclass(frozen=True, slots=True)
class NodeApi:
    """The node-facing routes and what they need."""

    site: Site
    store: Store
    progress: Progress
    library: Library
    orders: Orders
    commands: Commands
    downloads: Downloads
    secret: bytes
    loaders: Callable[[], Mapping[str, LoaderFile]]
    """The boot loaders by name, as they are now."""
    files: BootFiles
    overlays: Overlays
    event_rate: EventRate = field(default_factory=EventRate)

    def application(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(client_max_size=MAX_EVENT_BYTES)
        app.add_routes(
            [
                web.get("/ipxe/{mac}", self._script, allow_head=False),
                web.get("/boot/{token}/{name:kernel|initrd|root}", self.artefact),
                web.get("/loader/{name}", self.loader),
                web.get("/boot/{token}/overlay", self.overlay, allow_head=False),
                web.post("/boot/{token}/event", self.event),
                web.get("/boot/{token}/services", self.services, allow_head=False),
                web.get("/boot/{token}/commands", self.take_command, allow_head=False),
            ]
        )
        return app

    async def _script(self, request: web.Request) -> web.StreamResponse:
        return await self.script(request, request.match_info["mac"])

    async def script(self, request: web.BaseRequest, machine: str) -> web.StreamResponse:
        """The iPXE script of a machine: instructions, or why there are none and when to ask again."""
        try:
            mac = _mac(machine)
        except ValueError as error:
            raise web.HTTPNotFound(text=f"{error}\n") from error
        await self._refuse_impostors(request, mac)
        server = _own_address(request)
        told = await self.orders.for_machine(mac, server, "iPXE")
        if isinstance(told, Refusal):
            text = ipxe_refusal(told.reason, f"{self.site.base_url(server)}/ipxe/{mac}")
        else:
            text = ipxe_script(told)
        return text_answer(request, text)

    async def loader(self, request: web.Request) -> web.StreamResponse:
        """A boot loader, for UEFI HTTP Boot: HEAD and then GET, no token, as firmware has none."""
        loader = self.loaders().get(request.match_info["name"])
        if loader is None:
            raise web.HTTPNotFound(text="no such loader\n")
        address = _address_of(request)
        mac = await self.progress.machine_at(address) if address is not None else None
        if mac is not None and request.method == "GET":
            await self.progress.reach(mac, Stage.LOADER, loader=loader.name)
        response, sent = await send_loader(request, loader)
        if mac is not None:
            await self.progress.sent(mac, f"http {loader.name}", sent)
        log.info("%s: %s %s: %d bytes", mac or address, request.method, loader.name, sent)
        return response

    async def artefact(self, request: web.Request) -> web.StreamResponse:
        """Kernel, initrd or root of the image that the token names."""
        claim, boot = await self._admit(request)
        name = request.match_info["name"]
        try:
            image = self.library.get(claim.image)
        except PxebootError as error:
            log.error("%s: cannot load %s: %s", claim.mac, name, error)
            raise web.HTTPNotFound(text=f"{error}\n") from error
        if name == "root" and request.method == "GET":
            turn = await self.downloads.turn(boot.mac, image.manifest.artefacts.root.size)
            if turn.place:
                return _wait(boot.mac, turn)
            whole = False
            try:
                response = await self._send(request, boot.mac, image)
                whole = True
            finally:
                self.downloads.end(boot.mac, whole=whole)
            return response
        stage = _STAGE_OF_ARTEFACT.get(name)
        if stage is not None and request.method == "GET":
            await self.progress.reach(boot.mac, stage)
        return await self._send(request, boot.mac, image)

    async def _send(self, request: web.Request, mac: Mac, image: Image) -> web.StreamResponse:
        name = request.match_info["name"]
        try:
            file = await self.files.find(image, name, mac)
        except PxebootError as error:
            log.error("%s: cannot load %s: %s", mac, name, error)
            raise web.HTTPNotFound(text=f"{error}\n") from error
        try:
            response, sent = await send_artefact(request, file.path, file.sha256, file.size)
        except (ConnectionError, asyncio.CancelledError) as error:
            log.info("%s: %s broke off: %s", mac, name, error or "the client went away")
            raise
        await self.progress.sent(mac, f"http {name}", sent)
        return response

    async def overlay(self, request: web.Request) -> web.StreamResponse:
        """The files of this node, as a tar, for root on the machine itself."""
        claim, _ = await self._admit(request)
        await self._refuse_impostors(request, claim.mac)
        if _port_of(request) >= PRIVILEGED_PORTS:
            log.warning("%s: refused its files: asked from a port that is not root's", claim.mac)
            raise web.HTTPForbidden(text="ask from a port below 1024, as root\n")
        server = _own_address(request)
        try:
            data = await self.overlays.for_boot(claim.mac, claim.image, _address_of(request), server)
        except PxebootError as error:
            log.error("%s: no files for its root: %s (%s)", claim.mac, error, error.hint)
            raise web.HTTPConflict(text=f"{error}\n") from error
        return web.Response(
            body=data, content_type="application/x-tar", headers={"Cache-Control": "no-store"}
        )

    async def event(self, request: web.Request) -> web.StreamResponse:
        """A node's report. The answer carries a new token when the old one has aged, and what the services of
        its group need of it where that is not what it has.
        """
        claim, boot = await self._admit(request)
        if not self.event_rate.allows(claim.mac, time.monotonic()):
            raise web.HTTPTooManyRequests(headers={"Retry-After": "1"}, text="too many reports\n")
        try:
            told = NodeEvent.model_validate_json(await _body(request))
            detail = told.detail
            if told.stage == "image" and (place := self.downloads.place(claim.mac)):
                detail = (
                    f"queued, place {place}"  # the place of now, where the node knows only an earlier one
                )
            await self.progress.report(
                boot,
                Stage(told.stage),
                detail,
                told.done,
                told.total,
                _address_of(request),
                told.services,
            )
        except ValidationError as error:
            raise web.HTTPBadRequest(text=f"{error.error_count()} errors in this event\n") from error
        except WrongStep as error:
            log.info("%s: refused a report: %s", claim.mac, error)
            raise web.HTTPConflict(text=f"{error}\n") from error
        now = time.time()
        for network in self.site.leasing:
            await self.store.extend(network.config.subnet, claim.mac, now, network.config.lease_seconds)
        wanted = await self._equipment(claim.mac)
        news = {"services": wanted} if wanted != told.services else {}
        return web.json_response(self._renewed(claim, now) | news)

    async def services(self, request: web.Request) -> web.StreamResponse:
        """What the services of its group need of the node: its agent asks before it reports `ready`."""
        claim, _ = await self._admit(request)
        return web.json_response({"services": await self._equipment(claim.mac)})

    async def _equipment(self, mac: Mac) -> str:
        node = await self.store.node(mac) if self.site.config.service else None
        group = group_of(node, self.site.config) if node is not None else None
        if group is None:
            return ""
        return equipment.told(self.site.config.service, group.name, mac, self.site.gateways)

    def _renewed(self, claim: Claim, now: float) -> dict[str, str]:
        if claim.expires - now > LIFETIME_SECONDS - RENEW_SECONDS:
            return {}
        fresh = replace(claim, expires=int(now) + LIFETIME_SECONDS)
        return {"token": sign(fresh, self.secret)}

    async def take_command(self, request: web.Request) -> web.StreamResponse:
        """Long poll: a command, or 204 after a minute without one."""
        claim, _ = await self._admit(request)
        command = await self.commands.take(claim.mac)
        if command is None:
            return web.Response(status=204)
        log.info("%s: told to %s", claim.mac, command)
        return web.json_response({"command": command})

    async def _admit(self, request: web.Request) -> tuple[Claim, Boot]:
        """The boot whose token the request shows. Raises HTTPForbidden, with a log line."""
        try:
            claim = verify(request.match_info["token"], self.secret, time.time())
        except TokenRefusedError as error:
            log.warning("%s: token refused: %s", request.remote, error)
            raise web.HTTPForbidden(text=f"this token is refused: {error}\n") from error
        boot = await self.store.boot(claim.mac)
        if boot is None or boot.id != claim.boot_id:
            log.info("%s: token refused: it is of an earlier boot", claim.mac)
            raise web.HTTPForbidden(text="this token is refused: it is of an earlier boot\n")
        await self._refuse_thieves(_address_of(request), claim.mac)
        return claim, boot

    async def _refuse_thieves(self, address: IPv4Address | None, mac: Mac) -> None:
        """A machine that boots from an address we leased to it has a token of its own, not this one's.

        A machine without a boot may be a second network card of the same one; so may one of the same UUID.
        """
        lease = await self.store.lease_at(address) if address is not None else None
        if lease is None or lease.mac == mac or not lease.active(time.time()):
            return
        own, other = await self.store.node(mac), await self.store.node(lease.mac)
        one_machine = own and other and own.uuid is not None and own.uuid == other.uuid
        if one_machine or await self.store.boot(lease.mac) is None:
            return
        log.warning("%s: refused the token of %s: %s is not its address", lease.mac, mac, address)
        raise web.HTTPForbidden(text="this token is refused: it is of another machine's boot\n")

    async def _refuse_impostors(self, request: web.BaseRequest, mac: Mac) -> None:
        """A machine whose address is another's, as we leased or saw it, does not get this one's token."""
        address = _address_of(request)
        owner = await self.progress.machine_at(address) if address is not None else None
        if owner is not None and owner != mac:
            log.warning("%s: refused the script of %s: its address is %s's", address, mac, owner)
            raise web.HTTPForbidden(text=f"{address} is not the address of {mac}\n")


def _address_of(request: web.BaseRequest) -> IPv4Address | None:
    """The client's address; None over anything but IPv4."""
    return _ipv4(request.remote or "")


async def _body(request: web.Request) -> bytes:
    """What a node sends. Raises HTTPRequestTimeout where it does not come."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout(text="the body did not come\n") from None


def _wait(mac: Mac, turn: Turn) -> web.Response:
    """Tell a node to ask again (RFC 9110 §15.6.4). The place is for its console."""
    log.debug("%s: waits for the image, place %d", mac, turn.place)
    headers = {"Retry-After": str(turn.retry_seconds), "Queue-Place": str(turn.place)}
    return web.Response(status=503, headers=headers, text=f"queued, place {turn.place}\n")


_mac = lru_cache(maxsize=4096)(Mac.parse)


@lru_cache(maxsize=4096)
def _ipv4(text: str) -> IPv4Address | None:
    try:
        return IPv4Address(text)
    except ValueError:
        return None


def _port_of(request: web.Request) -> int:
    """The client's port."""
    assert request.transport is not None
    return int(request.transport.get_extra_info("peername")[1])


def _own_address(request: web.BaseRequest) -> IPv4Address:
    """Our address as the client reached it."""
    assert request.transport is not None
    address = _ipv4(request.transport.get_extra_info("sockname")[0])
    assert address is not None
    return address
