"""The boot server as a node sees it, with faults on demand."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

TOKEN = "first-Token_0"
HERE = "127.0.0.1"


@dataclass
class BootServer:
    """Serves `image` and takes events; what was asked is kept."""

    image: bytes = b""
    overlay: bytes = b""
    cuts: list[int] = field(default_factory=list)
    """For each coming answer, after how many bytes the connection breaks."""
    refusals: list[int] = field(default_factory=list)
    """HTTP statuses of the coming answers, to /root, /overlay and /event alike."""
    places: list[int] = field(default_factory=list)
    """Places in the queue, each told once before the image is given; the pause is as many seconds."""
    honours_range: bool = True
    tokens: list[str] = field(default_factory=list)
    """New tokens, one for each coming event."""
    commands: list[str] = field(default_factory=list)
    services: str | None = None
    """What the node's services need; None: this server knows of none."""
    ranges: list[str | None] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    event_tokens: list[str] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://{HERE}:{self.port}/boot/{TOKEN}"

    @property
    def stages(self) -> list[str]:
        return [event["stage"] for event in self.events]

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["BootServer"]:
        """Listen, the second time on the same port as the first."""
        app = web.Application()
        app.router.add_get("/boot/{token}/root", self._root)
        app.router.add_get("/boot/{token}/overlay", self._overlay)
        app.router.add_post("/boot/{token}/event", self._event)
        app.router.add_get("/boot/{token}/commands", self._commands)
        if self.services is not None:
            app.router.add_get("/boot/{token}/services", self._services)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, HERE, self.port, reuse_address=True)
        await site.start()
        self.port = runner.addresses[0][1]
        try:
            yield self
        finally:
            await runner.cleanup()

    async def until(self, happened: Callable[[], bool], seconds: float = 20.0) -> None:
        """Wait until `happened`, or fail."""
        async with asyncio.timeout(seconds):
            while not happened():
                await asyncio.sleep(0.02)

    async def _root(self, request: web.Request) -> web.StreamResponse:
        self.ranges.append(request.headers.get("Range"))
        if self.refusals:
            return web.Response(status=self.refusals.pop(0), text="no")
        if self.places:
            place = str(self.places.pop(0))
            return web.Response(status=503, headers={"Retry-After": place, "Queue-Place": place})
        start = request.http_range.start or 0 if self.honours_range else 0
        if start and start >= len(self.image):
            return web.Response(status=416)
        response = web.StreamResponse(status=206 if start else 200)
        response.content_length = len(self.image) - start
        if start:
            response.headers["Content-Range"] = f"bytes {start}-{len(self.image) - 1}/{len(self.image)}"
        await response.prepare(request)
        if not self.cuts:
            await response.write(self.image[start:])
            return response
        await response.write(self.image[start : start + self.cuts.pop(0)])
        await asyncio.sleep(0.1)  # let the bytes leave before the connection dies
        assert request.transport is not None
        request.transport.abort()
        return response

    async def _overlay(self, request: web.Request) -> web.Response:
        if self.refusals:
            return web.Response(status=self.refusals.pop(0), text="/etc/x: the template wants $y\n")
        return web.Response(body=self.overlay)

    async def _event(self, request: web.Request) -> web.Response:
        if self.refusals:
            return web.Response(status=self.refusals.pop(0), text="no")
        self.events.append(json.loads(await request.text()))
        self.event_tokens.append(request.match_info["token"])
        answer = {"token": self.tokens.pop(0)} if self.tokens else {}
        if self.services not in (None, self.events[-1].get("services", "")):
            answer["services"] = str(self.services)
        return web.json_response(answer)

    async def _services(self, request: web.Request) -> web.Response:
        if self.refusals:
            return web.Response(status=self.refusals.pop(0), text="no")
        return web.json_response({"services": self.services})

    async def _commands(self, request: web.Request) -> web.Response:
        if self.commands:
            return web.json_response({"command": self.commands.pop(0)})
        await asyncio.sleep(0.2)
        return web.Response(status=204)
