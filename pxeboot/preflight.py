"""Everything that can be wrong before the server starts, looked at in one go."""

import fcntl
import os
import shutil
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path

from pxeboot.balancer.service import ServiceConfig
from pxeboot.config import Config, ImagesConfig, NetworkConfig
from pxeboot.dhcp.proxy_server import open_boot_server
from pxeboot.dhcp.server import open_udp
from pxeboot.dns.server import DNS_PORT
from pxeboot.errors import PxebootError
from pxeboot.image.bootfiles import read_additions
from pxeboot.image.library import Library
from pxeboot.image.signature import trusted_keys
from pxeboot.links import addresses, ipv6_addresses
from pxeboot.pxe.arch import DEFAULT_LOADERS, LDLINUX, LPXELINUX, Loader, choose_loaders, remedy
from pxeboot.site import Network, Site
from pxeboot.web.overlays import read_files
from pxeboot.web.tls import Tls

TFTP_PORT = 69


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of `pxeboot check`: what was looked at, what was seen, and the error if it will not do."""

    subject: str
    seen: str
    error: PxebootError | None = None
    lacks: bool = False
    """It is not there, and the server starts without it."""


def look(config: Config) -> Iterator[Finding]:
    """Check interfaces, ports, loaders and images, one finding each, all of them."""
    networks: list[Network] = []
    for item in config.network:
        if item.interface is None:
            networks.append(Network(item, None))
            continue
        finding, network = _look_at_interface(item, config)
        networks += [network] if network else []
        yield finding
    if server_runs(config.server.state_dir):
        yield Finding("ports", "in use by the pxeboot that runs with this state directory")
    else:
        yield from _ports(config, networks)
    yield from _loaders(config)
    if config.https is not None:
        yield _tried("certificate", lambda: str(Tls.load(config)))
    yield from _services(config, networks)
    library = Library(config.server.state_dir / "images")
    if config.images.trusted:
        yield _tried("images", lambda: _trust(library, config.images))
    for group in config.group:
        yield _tried(
            f"image {group.image}",
            lambda group=group: f"{library.bootable(group.image).digest[:12]}, for group {group.name}",  # type: ignore[misc]
        )
        if group.initrd:
            yield _tried(
                f"initrd of group {group.name}",
                lambda group=group: f"{len(read_additions(group.initrd))} files added",  # type: ignore[misc]
            )
        if group.files:
            yield _tried(
                f"files of group {group.name}",
                lambda group=group: f"{len(read_files(group))} to lay over its nodes' roots",  # type: ignore[misc]
            )
    for service in config.service:
        if _script_of(service) is not None:
            yield _tried(f"check of {service.name}", lambda service=service: find_script(service))  # type: ignore[misc]
    if any(service.forward == "nat" for service in config.service):
        yield from _routers(networks)


def _trust(library: Library, images: ImagesConfig) -> str:
    library.trust(trusted_keys(images))
    return f"only those signed by one of {len(images.trusted)} keys"


def _routers(networks: list[Network]) -> Iterator[Finding]:
    """Whether answers of nodes to clients come back to us, which address translation needs."""
    for network in networks:
        router = network.config.router
        if router is not None and router != network.address:
            yield Finding(
                f"router of {network.config.subnet}",
                f'{router}, not this box: what nodes answer for services with forward = "nat" must come back'
                " through here, so leave router out, or have it route that way",
            )


def _script_of(service: ServiceConfig) -> str | None:
    check = service.check
    return check.command[0] if check is not None and check.kind == "script" else None


def find_script(service: ServiceConfig) -> str:
    """Where the program of a service's check is. Raises PxebootError."""
    named = _script_of(service)
    assert named is not None
    found = shutil.which(named)
    if found is None:
        raise PxebootError(
            f"service {service.name}: check.command: {named!r} is no program that can be run",
            "write its whole path, and make it executable: chmod +x",
        )
    return found


def _services(config: Config, networks: list[Network]) -> Iterator[Finding]:
    """IPVS, and where each virtual address goes; nothing where there is no service."""
    if not config.service:
        return
    from pxeboot.balancer import ipvs  # noqa: PLC0415  who has no service loads nothing of it

    yield _tried("IPVS", ipvs.look)
    for service in config.service:
        yield _tried(f"service {service.name}", partial(_look_at_service, service, config, networks))


def _look_at_service(service: ServiceConfig, config: Config, networks: Iterable[Network]) -> str:
    """Where its virtual address is or goes. Raises PxebootError."""
    from pxeboot.balancer.director import Director  # noqa: PLC0415

    own = {67, TFTP_PORT, DNS_PORT, config.server.http_port}
    if service.port in own and any(service.vip == network.address for network in networks):
        raise PxebootError(
            f"service {service.name}: {service.vip}:{service.port} is where this server itself answers",
            "choose another address, or another port",
        )
    box = Director()
    try:
        if not service.manage_vip or box.has(service.vip):
            return f"{service.vip}" + ("" if box.has(service.vip) else ", which somebody else puts here")
        return f"{service.vip} goes on {box.home(service)}"
    finally:
        box.close()


def _loaders(config: Config) -> Iterator[Finding]:
    try:
        needed = needed_loaders(config)
    except PxebootError as error:
        yield Finding("loaders", "", error)
        return
    for loader in needed:
        if loader.rare and not loader.path.is_file():
            seen = f"missing, who needs it is not answered: {remedy(loader)}"
            yield Finding(f"loader {loader.name}", seen, lacks=True)
            continue
        yield _tried(f"loader {loader.name}", lambda loader=loader: str(find_loader(loader)))  # type: ignore[misc]


def resolve(config: Config) -> Site:
    """The site with our own addresses and its loaders. Raises PxebootError, the first that `look` would find.

    A missing loader that only one kind of machine needs is no reason not to start: those are not answered.
    """
    networks = tuple(resolve_network(item) for item in config.network)
    for service in config.service:
        if _script_of(service) is not None:
            find_script(service)
    loaders = choose_loaders(config.loaders)
    absent = [loader for loader in needed_loaders(config) if not loader.path.is_file()]
    for loader in absent:
        if loader not in DEFAULT_LOADERS.values():
            find_loader(loader)
    missing = frozenset(loader.name for loader in absent)
    folder = config.tftp.root is not None
    name = "" if config.https is None else Tls.load(config).name
    for service in config.service:
        _look_at_service(service, config, networks)
    translated = any(service.forward == "nat" and service.node_prefix for service in config.service)
    gateways = ipv6_addresses() if translated else ()
    return Site(config, networks, replace(loaders, missing=missing, folder=folder), name, gateways)


def resolve_network(config: NetworkConfig) -> Network:
    """Find our address in a network. Raises PxebootError where there is none."""
    if config.interface is None:
        return Network(config, None)
    found = addresses(config.interface)
    own = next((item.ip for item in found if item.ip in config.subnet), None)
    if own is None:
        raise PxebootError(
            f"interface {config.interface!r} has no address in {config.subnet}",
            f"give it one: ip address add {next(config.subnet.hosts())}/{config.subnet.prefixlen} "
            f"dev {config.interface}",
        )
    if any(own in item for item in config.pool):
        raise PxebootError(
            f"the pool of {config.subnet} holds {own}, which is this server's own address",
            "leave it out of the pool",
        )
    return Network(config, own)


def needed_loaders(config: Config) -> list[Loader]:
    """The loaders that this site's groups can be sent to. Raises PxebootError for a wrong `[loaders]`."""
    chosen = choose_loaders(config.loaders).chosen.values() if config.group else ()
    needed = list(dict.fromkeys(chosen))
    if any(group.loader == "pxelinux" for group in config.group):
        needed += [LPXELINUX, LDLINUX]
    return needed


def find_loader(loader: Loader) -> Path:
    """Where a loader is. Raises PxebootError naming its package."""
    if not loader.path.is_file():
        raise PxebootError(f"loader {loader.name} is missing: {loader.path}", remedy(loader))
    return loader.path


@contextmanager
def only_server(state_dir: Path) -> Iterator[None]:
    """Hold the state directory for one server. Raises PxebootError where another has it."""
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        file = (state_dir / "lock").open("w")
    except OSError as error:
        raise PxebootError(
            f"server.state_dir: {state_dir}: {error.strerror}", "choose a directory that can be written"
        ) from error
    with file:
        if not _lock(file.fileno()):
            raise PxebootError(
                f"a pxeboot server is running with {state_dir}", "stop it, or give each its own state_dir"
            )
        yield


def server_runs(state_dir: Path) -> bool:
    """Whether a server holds this state directory."""
    try:
        with (state_dir / "lock").open("r+") as file:
            return not _lock(file.fileno())
    except OSError:
        return False


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _look_at_interface(item: NetworkConfig, config: Config) -> tuple[Finding, Network | None]:
    try:
        network = resolve_network(item)
    except PxebootError as error:
        return Finding(f"interface {item.interface}", "", error), None
    return Finding(f"interface {item.interface}", f"{network.address} in {item.subnet}"), network


def _ports(config: Config, networks: list[Network]) -> Iterator[Finding]:
    for network in networks:
        if network.address is None or network.config.interface is None:
            continue
        interface, address = network.config.interface, network.address
        yield _tried(f"DHCP, UDP 67 on {interface}", lambda: _close(open_udp(interface)))  # noqa: B023
        yield _tried(
            f"PXE, UDP 4011 on {interface}",
            lambda: _close(open_boot_server(interface, address)),  # noqa: B023
        )
        yield _port(f"TFTP, UDP {TFTP_PORT}", socket.SOCK_DGRAM, address, TFTP_PORT)
        if config.dns is not None:
            yield _port(f"DNS, UDP {DNS_PORT}", socket.SOCK_DGRAM, address, DNS_PORT)
            yield _port(f"DNS, TCP {DNS_PORT}", socket.SOCK_STREAM, address, DNS_PORT)
        yield _port(
            f"HTTP, TCP {config.server.http_port}", socket.SOCK_STREAM, address, config.server.http_port
        )
        if config.https is not None:
            yield _port(f"HTTPS, TCP {config.https.port}", socket.SOCK_STREAM, address, config.https.port)
    host, port = config.server.admin_endpoint
    yield _port(f"admin, TCP {port}", socket.SOCK_STREAM, IPv4Address(host), port)


def _port(subject: str, kind: socket.SocketKind, address: IPv4Address, port: int) -> Finding:
    def bind() -> str:
        with socket.socket(socket.AF_INET, kind) as probe:
            if kind == socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((str(address), port))
            except OSError as error:
                raise port_error(address, port, error) from error
        return "free"

    return _tried(f"{subject} on {address}", bind)


def port_error(address: IPv4Address | str, port: int, error: OSError) -> PxebootError:
    """What an operator does about a port that cannot be had."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    hint = f"`ss -lntup 'sport = :{port}'` names who has it: stop that, or configure another port"
    if isinstance(error, PermissionError):
        hint = "run pxeboot as root"
    return PxebootError(f"port {port} on {address}: {reason}", hint)


def _tried(subject: str, attempt: Callable[[], str]) -> Finding:
    try:
        return Finding(subject, attempt())
    except PxebootError as error:
        return Finding(subject, "", error)


def _close(opened: socket.socket) -> str:
    opened.close()
    return "free"
