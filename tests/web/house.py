"""The node API over real sockets, and what stands behind it."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from pxeboot.app import _subnets
from pxeboot.events import Bus
from pxeboot.image.bootfiles import BootFiles
from pxeboot.image.library import Library
from pxeboot.inventory.boot import Stage
from pxeboot.inventory.node import Node
from pxeboot.inventory.progress import Progress
from pxeboot.inventory.store import Store, open_store
from pxeboot.mac import Mac
from pxeboot.orders import Orders
from pxeboot.site import Site
from pxeboot.web.commands import Commands
from pxeboot.web.downloads import Downloads
from pxeboot.web.images import LoaderFile
from pxeboot.web.node_api import NodeApi
from pxeboot.web.overlays import Overlays
from pxeboot.web.scripts import scripts_first
from tests.parts import make_site, put_image

MAC, OTHER = Mac("52:54:00:00:00:01"), Mac("52:54:00:00:00:02")
SECRET = b"k" * 32
LOADER = LoaderFile.of("snponly.efi", bytes(range(256)) * 700)
Http = TestClient[web.Request, web.Application]


@dataclass
class House:
    """The node API on loopback, and what stands behind it."""

    site: Site
    library: Library
    http: Http
    store: Store
    progress: Progress
    commands: Commands
    image: str

    async def script(self, mac: Mac = MAC) -> str:
        async with self.http.get(f"/ipxe/{mac}") as answer:
            assert answer.status == 200
            return await answer.text()

    async def boot_path(self, mac: Mac = MAC) -> str:
        found = re.search(r"(/boot/[^/ ]+)/kernel", await self.script(mac))
        assert found is not None
        return found[1]

    def put_root(self, root: bytes) -> None:
        """Let the tag point to an image with this root."""
        put_image(self.library, root=root)

    async def report(self, path: str, **event: object) -> int:
        async with self.http.post(f"{path}/event", json=event) as answer:
            return answer.status

    async def stage(self) -> Stage:
        boot = await self.store.boot(MAC)
        assert boot is not None
        return boot.stage


@asynccontextmanager
async def open_house(tmp_path: Path) -> AsyncIterator[House]:
    site = make_site(tmp_path)
    library = Library(tmp_path / "images")
    image = put_image(library)
    store = open_store(tmp_path)
    await store.use_subnets(_subnets(site))
    progress = Progress(store, Bus())
    orders = Orders(site, store, progress, library, SECRET)
    commands = Commands()
    files = BootFiles(tmp_path / "initrds")
    loaders = {LOADER.name: LOADER}
    downloads, overlays = Downloads(site), Overlays(site, store)
    api = NodeApi(
        site, store, progress, library, orders, commands, downloads, SECRET, lambda: loaders, files, overlays
    )
    await store.save_node(Node(MAC, "web1"))
    server = TestServer(api.application())  # cancels handlers, as the app does
    await server.start_server()
    assert isinstance(server.runner, web.AppRunner)
    assert server.runner.server is not None
    scripts_first(server.runner.server, api.script)
    async with TestClient(server) as http:
        yield House(site, library, http, store, progress, commands, image.digest)
    await store.close()
