"""The certificate's files, and nodes that speak HTTPS: curl, and the initrd's own scripts."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from aiohttp import web

from pxeboot.config import Config, HttpsConfig, parse
from pxeboot.errors import PxebootError
from pxeboot.tasks import Tasks
from pxeboot.web import limits, tls
from pxeboot.web.limits import Connections, listen_securely
from pxeboot.web.tls import FOLDER, Tls
from tests.initrd.shell import call_beside
from tests.parts import ROOT, SITE
from tests.web.house import House

HERE = [IPv4Address("127.0.0.1")]


def config(state_dir: Path, more: str = "") -> Config:
    return parse(SITE.replace("STATE", str(state_dir)) + f"\n[https]\nport = 8443\n{more}")


def test_all_that_is_made_is_the_owners_only(tmp_path: Path) -> None:
    tls.init(tmp_path / FOLDER, HERE)
    assert (tmp_path / FOLDER).stat().st_mode & 0o777 == 0o700
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / FOLDER).iterdir()}
    assert modes == dict.fromkeys(("authority.pem", "authority.key", "server.pem"), 0o600)


def test_an_authority_is_never_overwritten(tmp_path: Path) -> None:
    tls.init(tmp_path / FOLDER, HERE)
    before = (tmp_path / FOLDER / "authority.pem").read_bytes()
    with pytest.raises(PxebootError, match="exists") as caught:
        tls.init(tmp_path / FOLDER, HERE)
    assert "tls renew" in caught.value.hint
    assert (tmp_path / FOLDER / "authority.pem").read_bytes() == before


def test_what_is_renewed_is_trusted_as_before(tmp_path: Path) -> None:
    tls.init(tmp_path / FOLDER, [])
    loaded = Tls.load(config(tmp_path))
    assert not loaded.facts.addresses
    before = (tmp_path / FOLDER / "server.pem").read_bytes()
    tls.renew(tmp_path / FOLDER, HERE)
    assert (tmp_path / FOLDER / "server.pem").read_bytes() != before
    loaded.reload()
    again = Tls.load(config(tmp_path))
    assert (again.facts.addresses, again.authority) == (frozenset(HERE), loaded.authority)


def test_a_certificate_that_ends_soon_is_told_with_the_remedy(tmp_path: Path) -> None:
    tls.init(tmp_path / FOLDER, HERE)
    loaded = Tls.load(config(tmp_path))
    assert not loaded.expires_soon
    soon = datetime.now(UTC) + timedelta(days=30)
    assert "pxeboot tls renew" in str(replace(loaded, facts=replace(loaded.facts, expires=soon)))


def test_without_a_certificate_the_remedy_is_named(tmp_path: Path) -> None:
    with pytest.raises(PxebootError, match="no certificate") as caught:
        Tls.load(config(tmp_path))
    assert "pxeboot tls init" in caught.value.hint


def test_an_operators_certificate_is_tried_before_nodes_are_sent_to_it(tmp_path: Path) -> None:
    mine, other = tmp_path / "mine", tmp_path / "other"
    tls.init(mine, HERE)
    tls.init(other, HERE)
    named = f'certificate = "{mine}/server.pem"\nauthority = "%s/authority.pem"'
    assert Tls.load(config(tmp_path, named % mine)).name == "pxeboot"
    with pytest.raises(PxebootError, match=r"mine/server\.pem: a node would refuse it"):
        Tls.load(config(tmp_path, named % other))


@pytest.mark.parametrize("damage", [b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
@pytest.mark.parametrize("name", ["server.pem", "authority.pem"])
def test_damaged_files_are_named(tmp_path: Path, name: str, damage: bytes) -> None:
    tls.init(tmp_path / FOLDER, HERE)
    (tmp_path / FOLDER / name).write_bytes(damage)
    with pytest.raises(PxebootError):
        Tls.load(config(tmp_path))


def test_a_lone_key_or_authority_is_refused(tmp_path: Path) -> None:
    for lone in ('key = "/k"', 'authority = "/a"', 'certificate = "/c"'):
        with pytest.raises(PxebootError, match="https"):
            config(tmp_path, lone)


@dataclass(frozen=True)
class Port:
    number: int
    folder: Path
    connections: Connections

    @property
    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.folder / "authority.pem")


@pytest.fixture
async def port(house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Port]:
    """The house's HTTPS port, for 8 connections of an address."""
    monkeypatch.setattr(limits, "HANDSHAKE_SECONDS", 0.5)
    tls.init(tmp_path / FOLDER, HERE)
    context = Tls.load(config(tmp_path)).context
    runner = house.http.server.runner
    assert isinstance(runner, web.AppRunner)
    assert runner.server is not None
    connections, tasks = Connections(lambda: 8), Tasks()
    listening = await listen_securely(runner.server, "127.0.0.1", 0, connections, context, tasks)
    number = listening.sockets[0].getsockname()[1]
    house.site.config = replace_https(house.site.config, number)
    house.site.https_name = "pxeboot"
    yield Port(number, tmp_path / FOLDER, connections)
    listening.close()
    await tasks.close()


def replace_https(config: Config, port: int) -> Config:
    return config.model_copy(update={"https": HttpsConfig(port=port)})


def curl(port: Port, *arguments: str) -> tuple[str, ...]:
    there = ("--connect-to", "::127.0.0.1:", "--cacert", str(port.folder / "authority.pem"))
    return ("curl", "-q", "-sS", "--noproxy", "*", *there, *arguments)


async def output(*command: str) -> tuple[int, bytes]:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    told, _ = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode is not None
    return process.returncode, told


async def test_the_initrd_is_sent_to_https_and_the_loader_is_not(house: House, port: Port) -> None:
    script = await house.script()
    assert f"pxeboot.url=https://pxeboot:{port.number}/boot/" in script
    assert "pxeboot.server=127.0.0.1 pxeboot.time=" in script
    assert "\nkernel http://127.0.0.1" in script
    assert "\ninitrd --name initrd http://127.0.0.1" in script


@pytest.mark.parametrize("wanted", [range(len(ROOT)), range(262143, 262145), range(1000000, len(ROOT))])
async def test_bytes_are_the_same_over_https(house: House, port: Port, wanted: range) -> None:
    url = f"https://pxeboot:{port.number}{await house.boot_path()}/root"
    status, body = await output(*curl(port, "-r", f"{wanted.start}-{wanted.stop - 1}", url))
    assert (status, body) == (0, ROOT[wanted.start : wanted.stop])


async def test_a_server_of_another_authority_is_not_believed(
    house: House, port: Port, tmp_path: Path
) -> None:
    tls.init(tmp_path / "other", HERE)
    path = await house.boot_path()
    url = f"https://pxeboot:{port.number}{path}/root"
    status, _ = await output(*curl(replace(port, folder=tmp_path / "other"), url))
    assert status == 60  # curl(1): peer certificate cannot be authenticated
    status, _ = await output(*curl(port, url.replace("//pxeboot", "//other")))
    assert status == 60


async def test_the_scripts_of_the_initrd_load_and_report_over_https(
    house: House, port: Port, tmp_path: Path
) -> None:
    run, target = tmp_path / "run", tmp_path / "root"
    run.mkdir()
    path = await house.boot_path()
    script = (
        'use_https 127.0.0.1 "$1"; write_secret "$PXEBOOT_RUN/url" "$2"; '
        'load_file "$3" "$4" && report image loaded 1 2'
    )
    url = f"https://pxeboot:{port.number}{path}"
    files = ("report.sh", "image.sh")
    arguments = (str(port.folder / "authority.pem"), url, str(target), str(len(ROOT)))
    status, told = await call_beside(run, files, script, *arguments)
    assert (status, target.read_bytes()) == (0, ROOT), told
    boot = await house.store.boot(next(iter([node.mac for node in await house.store.nodes()])))
    assert boot is not None
    assert (boot.stage.value, boot.detail) == ("image", "loaded")


async def test_who_does_not_speak_tls_is_dropped_and_the_port_goes_on(house: House, port: Port) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port.number)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    with contextlib.suppress(ConnectionError):
        assert b"HTTP" not in await asyncio.wait_for(reader.read(), 5)
    writer.close()
    status, _ = await output(*curl(port, f"https://pxeboot:{port.number}/loader/none"))
    assert status == 0


async def test_connections_are_counted_before_they_have_said_anything(house: House, port: Port) -> None:
    silent = [await asyncio.open_connection("127.0.0.1", port.number) for _ in range(8)]
    reader, writer = await asyncio.open_connection("127.0.0.1", port.number)
    with contextlib.suppress(ConnectionError):
        assert await asyncio.wait_for(reader.read(), 0.3) == b""
    writer.close()
    for reader, writer in silent:  # each is given up when its handshake does not come
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
    await asyncio.sleep(0.1)
    for _ in range(10):  # and every one that ends is counted out
        _, writer = await asyncio.open_connection(
            "127.0.0.1", port.number, ssl=port.trust, server_hostname="pxeboot"
        )
        writer.close()
        await writer.wait_closed()
        await asyncio.sleep(0.02)
    assert not port.connections._open
