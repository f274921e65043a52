"""The wiring: every part made, started in order, and ended in the reverse one."""

import asyncio
import gc
import logging
import os
import resource
import secrets
import signal
from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

from pxeboot.config import Config, load
from pxeboot.dhcp.prober import Prober
from pxeboot.dhcp.proxy_server import BootServer
from pxeboot.dhcp.server import DhcpServer
from pxeboot.dns.forward import Forwarder
from pxeboot.dns.nodes import NodeNames
from pxeboot.dns.server import DnsServer
from pxeboot.errors import PxebootError
from pxeboot.events import Bus
from pxeboot.image.bootfiles import BootFiles
from pxeboot.image.library import Library
from pxeboot.image.signature import trusted_keys
from pxeboot.inventory.node import group_of
from pxeboot.inventory.progress import Progress
from pxeboot.inventory.store import Subnet, open_store
from pxeboot.mac import Mac
from pxeboot.ndp.server import RouterAnswers
from pxeboot.orders import Orders
from pxeboot.preflight import needed_loaders, only_server, port_error, resolve
from pxeboot.pxe.arch import remedy
from pxeboot.readings import Sources, metrics_of
from pxeboot.site import Site
from pxeboot.tasks import Tasks
from pxeboot.tftp.folder import Folder
from pxeboot.tftp.names import Names
from pxeboot.tftp.server import TftpServer, TransferRecord
from pxeboot.tftp.transfer import TftpLimits
from pxeboot.web.commands import Commands
from pxeboot.web.downloads import Downloads
from pxeboot.web.faults import http_log
from pxeboot.web.images import LoaderFile
from pxeboot.web.limits import Connections, listen, listen_securely
from pxeboot.web.node_api import NodeApi
from pxeboot.web.operator_api import OperatorApi
from pxeboot.web.overlays import Overlays
from pxeboot.web.scripts import scripts_first
from pxeboot.web.tls import Tls

if TYPE_CHECKING:
    from pxeboot.balancer.loop import Balancer

log = logging.getLogger(__name__)

SOCKET_NAME = "pxeboot.sock"
EXPIRE_SECONDS = 5.0
"""How often boots that have gone silent are looked for."""
SHUTDOWN_SECONDS = 2.0
"""What requests under way are given when the server ends; it is gone within 5 s."""


async def serve(path: Path) -> None:
    """Run until SIGTERM or SIGINT. Raises PxebootError where it cannot start; then nothing is left behind."""
    config = load(path)
    logging.getLogger().setLevel(config.server.log_level.upper())
    stop, reread = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, reread.set)
    _allow_open_files()
    with only_server(config.server.state_dir):
        async with AsyncExitStack() as ending:
            server = Server(await asyncio.to_thread(resolve, config), ending)
            await server.start()
            _settle_memory()
            log.info("ready")
            server.tasks.keep(partial(_reread_on, reread, path, server), "reread")
            await stop.wait()
            log.info("ending")


def _settle_memory() -> None:
    """Look for cycles less often, and not among what was loaded at the start.

    A storm makes many short-lived objects and no cycles; looking for them took a quarter of its CPU.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def _allow_open_files() -> None:
    """As many as we may: every transfer and every connection is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _reread_on(reread: asyncio.Event, path: Path, server: "Server") -> None:
    await reread.wait()
    reread.clear()
    try:
        await server.use(load(path))
    except PxebootError as error:
        log.error("the configuration stays as it was: %s (%s)", error, error.hint)


class Server:
    """All services of one site on one event loop."""

    def __init__(self, site: Site, ending: AsyncExitStack) -> None:
        """`ending` is unwound by the caller, whatever happens."""
        state_dir = site.config.server.state_dir
        self.tasks = Tasks()
        self._site = site
        self._ending = ending
        self._dhcp: dict[str, DhcpServer] = {}
        self._bus = Bus()
        self._tftp: list[TftpServer] = []
        self._library = Library(state_dir / "images", trusted_keys(site.config.images))
        for group in site.config.group:
            self._library.bootable(group.image)
        self._loaders = _read_loaders(site)
        self._tls = None if site.config.https is None else Tls.load(site.config)
        self._files = BootFiles(
            state_dir / "initrds", self._tls.authority if self._tls else None, self._initrd_additions
        )
        self._files.clear()
        self._store = open_store(state_dir)
        self._progress = Progress(self._store, self._bus)
        self._secret = _secret(state_dir / "secret")
        self._orders = Orders(site, self._store, self._progress, self._library, self._secret)
        self._names = Names(
            self._loaders,
            _tftp_root(site.config),
            self._orders,
            self._library,
            self._files,
            self._store,
            self._progress,
            self._secret,
        )
        self._balancer: Balancer | None = None

    async def _initrd_additions(self, mac: Mac) -> Mapping[str, Path]:
        node = await self._store.node(mac)
        group = group_of(node, self._site.config) if node else None
        return group.initrd if group else {}

    async def start(self) -> None:
        """Open everything, DHCP last: who is given an address finds the rest there. Raises PxebootError."""
        self._ending.push_async_callback(self._store.close)
        self._ending.push_async_callback(self.tasks.close)
        await self._store.use_subnets(_subnets(self._site))
        self.tasks.keep(self._expire, "stage limits")
        await self._start_http()
        await self._start_dns()
        await self._balance()
        for _, address in self._listening():
            await self._start_tftp(address)
        probers = {name: Prober(name, self._site, self._store) for name, _ in self._listening()}
        for interface, address in self._listening():
            self._ending.push_async_callback(probers[interface].close)
            await probers[interface].start()
            routers = RouterAnswers(interface, self._store)
            self._ending.push_async_callback(routers.close)
            await routers.start()
            dhcp = DhcpServer(interface, address, self._site, self._store, self._progress, probers)
            self._dhcp[interface] = dhcp
            boot_server = BootServer(interface, address, dhcp.proxy)
            for server in (boot_server, dhcp):
                self._ending.push_async_callback(server.close)
                await server.start()

    async def use(self, config: Config) -> None:
        """Take a new configuration; what is bound to sockets stays. Raises PxebootError, nothing changed."""
        site = await asyncio.to_thread(resolve, config)
        trusted = trusted_keys(config.images)
        library = Library(config.server.state_dir / "images", trusted)
        for group in config.group:
            library.bootable(group.image)
        loaders = _read_loaders(site)
        if _bound(site) != _bound(self._site):
            raise PxebootError(
                "[server], [tftp], [dns], [https] and interfaces are read at start only",
                "restart pxeboot to change them",
            )
        if self._tls is not None:
            self._tls.reload()
        self._library.trust(trusted)
        self._site.config, self._site.networks, self._site.loaders = site.config, site.networks, site.loaders
        self._site.gateways = site.gateways
        self._site.https_name = site.https_name
        self._loaders = self._names.loaders = loaders
        await self._store.use_subnets(_subnets(site))
        if self._balancer is not None:
            self._balancer.resume()
        await self._balance()
        log.info("the configuration has been reread")

    def _too_many(self) -> dict[str, int]:
        """DHCP requests that were not answered, by interface."""
        drops = {interface: server.dropped for interface, server in self._dhcp.items()}
        return {interface: drop["queue"] + drop["kernel"] for interface, drop in drops.items()}

    def _listening(self) -> list[tuple[str, IPv4Address]]:
        return [
            (network.config.interface, network.address)
            for network in self._site.networks
            if network.config.interface is not None and network.address is not None
        ]

    async def _start_http(self) -> None:
        commands = Commands()
        nodes = NodeApi(
            self._site,
            self._store,
            self._progress,
            self._library,
            self._orders,
            commands,
            Downloads(self._site),
            self._secret,
            lambda: self._loaders,
            self._files,
            Overlays(self._site, self._store),
        )
        runner = await self._runner(nodes.application())
        assert runner.server is not None  # it has been set up
        scripts_first(runner.server, nodes.script)
        connections = Connections(lambda: self._site.config.http.max_connections_per_address)
        for _, address in self._listening():
            port = self._site.config.server.http_port
            listening = await listen(runner.server, str(address), port, connections)
            self._ending.callback(listening.close)
            await self._start_https(runner.server, str(address), connections)
        sources = Sources(self._site, self._store, self._progress, self._tftp, self._dhcp.values())
        operators = OperatorApi(
            self._site,
            self._store,
            self._bus,
            commands,
            metrics_of(sources),
            self._too_many,
            lambda: self._balancer,
        )
        runner = await self._runner(operators.application())
        await _listen(runner, *self._site.config.server.admin_endpoint)
        await _listen_unix(runner, self._site.config.server.state_dir / SOCKET_NAME)

    async def _start_https(self, server: web.Server, address: str, connections: Connections) -> None:
        https = self._site.config.https
        if https is None or self._tls is None:
            return
        level = logging.WARNING if self._tls.expires_soon else logging.INFO
        log.log(level, "certificate %s", self._tls)
        listening = await listen_securely(
            server, address, https.port, connections, self._tls.context, self.tasks
        )
        self._ending.callback(listening.close)

    async def _runner(self, application: web.Application) -> web.AppRunner:
        runner = web.AppRunner(
            application,
            access_log=None,
            logger=http_log(),
            shutdown_timeout=SHUTDOWN_SECONDS,
            handler_cancellation=True,  # a node that hung up takes no commands
        )
        self._ending.push_async_callback(runner.cleanup)
        await runner.setup()
        return runner

    async def _balance(self) -> None:
        """Start the balancer where there is a service, or one of ours is still in the kernel."""
        if self._balancer is not None or not (self._site.config.service or await self._store.made()):
            return
        from pxeboot.balancer.loop import Balancer  # noqa: PLC0415  who has no service loads nothing of it

        balancer = Balancer(self._site, self._store, self._progress, self._bus)
        self._ending.push_async_callback(balancer.close)
        await balancer.start()
        self._balancer = balancer

    async def _start_dns(self) -> None:
        config = self._site.config.dns
        if config is None:
            return
        names = NodeNames(config.domain, self._site, self._store, self._bus)
        await names.refresh()
        self.tasks.keep(names.follow, "names")
        forwarder = Forwarder([str(server) for server in config.forward])
        self._ending.push_async_callback(forwarder.close)
        for _, address in self._listening():
            dns = DnsServer(address, partial(names.zone, address), names.allowed, forwarder)
            self._ending.push_async_callback(dns.close)
            await dns.start()

    async def _start_tftp(self, address: IPv4Address) -> None:
        config = self._site.config.tftp
        tftp = TftpServer(
            str(address),
            partial(self._names.content, address),
            TftpLimits(config.max_block_size, config.max_window_size, config.max_transfers),
            self._tftp_finished,
            single_port=config.single_port,
        )
        self._ending.push_async_callback(tftp.close)
        await tftp.start()
        self._tftp.append(tftp)

    def _tftp_finished(self, record: TransferRecord) -> None:
        self.tasks.spawn(self._names.note(record), "TFTP record")

    async def _expire(self) -> None:
        while True:
            await asyncio.sleep(EXPIRE_SECONDS)
            await self._progress.expire()


def _subnets(site: Site) -> list[Subnet]:
    return [
        Subnet(
            network.config.subnet,
            network.config.pool,
            frozenset(item for item in (network.address, network.config.router) if item is not None),
        )
        for network in site.leasing
    ]


def _bound(site: Site) -> tuple[object, ...]:
    """What cannot change while the server runs."""
    interfaces = {(network.config.interface, network.address) for network in site.networks}
    config = site.config
    server = config.server.model_copy(update={"unknown": "boot"})
    return server, config.tftp, config.dns, config.https, interfaces


def _read_loaders(site: Site) -> dict[str, LoaderFile]:
    """The loaders that are there, by name. Raises PxebootError."""
    found = {}
    for loader in needed_loaders(site.config):
        if loader.name in site.loaders.missing:
            level = logging.DEBUG if loader.rare else logging.WARNING
            log.log(level, "loader %s is missing: %s; who needs it is ignored", loader.name, remedy(loader))
            continue
        try:
            data, modified = loader.path.read_bytes(), loader.path.stat().st_mtime
            found[loader.name] = LoaderFile.of(loader.name, data, modified)
        except OSError as error:
            raise PxebootError(f"loader {loader.path}: {error.strerror}", "it must be readable") from error
    return found


def _tftp_root(config: Config) -> Folder | None:
    """The folder of extra files, if there is one. Raises PxebootError."""
    root = config.tftp.root
    try:
        return None if root is None else Folder(root)
    except OSError as error:
        raise PxebootError(f"tftp.root: {root}: {error.strerror}", "it must be a readable folder") from error


def _secret(path: Path) -> bytes:
    """The key that signs boot tokens, made once: tokens outlive the process. Raises PxebootError."""
    try:
        if not path.exists():
            draft = path.with_suffix(".new")
            draft.unlink(missing_ok=True)
            draft.touch(0o600, exist_ok=False)
            with draft.open("wb") as file:
                file.write(secrets.token_bytes(32))
                os.fsync(file.fileno())
            draft.rename(path)
        return path.read_bytes()
    except OSError as error:
        raise PxebootError(f"{path}: {error.strerror}", "the state directory must be writable") from error


async def _listen(runner: web.AppRunner, host: str, port: int) -> None:
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        raise port_error(host, port, error) from error
    log.info("HTTP on %s:%d", host, port)


async def _listen_unix(runner: web.AppRunner, path: Path) -> None:
    """The command line's socket, for the owner only from its first moment on."""
    before = os.umask(0o177)
    try:
        path.unlink(missing_ok=True)  # noqa: ASYNC240  a killed server's; we hold the lock, so it is nobody's
        await web.UnixSite(runner, str(path)).start()
    except OSError as error:
        raise PxebootError(f"{path}: {error}", "its path may have 107 bytes; choose a state_dir") from error
    finally:
        os.umask(before)
