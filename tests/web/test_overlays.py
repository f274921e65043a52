"""A node's files: who gets them, and what is in them."""

import asyncio
import io
import socket
import tarfile
from pathlib import Path

import pytest

from pxeboot.config import GroupConfig
from pxeboot.inventory.node import Node
from pxeboot.inventory.overlay import Laid, NodeFile, Overlay

from .house import MAC, House

ROOTS_PORT = 1023


@pytest.fixture
def from_roots_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pxeboot.web.node_api._port_of", lambda request: ROOTS_PORT)


def give_files(house: House, folder: Path, text: str, **group: object) -> None:
    """Let the only group have one template, /etc/app.conf."""
    (folder / "app.conf").write_text(text)
    config = house.site.config
    asked = {"source": folder / "app.conf", "template": True, "mode": 0o640}
    told = GroupConfig.model_validate(
        {**config.group[0].model_dump(exclude={"options"}), "files": {"/etc/app.conf": asked}, **group}
    )
    house.site.config = config.model_copy(update={"group": (told,)})


async def files_of(house: House, path: str) -> dict[str, bytes]:
    async with house.http.get(f"{path}/overlay") as answer:
        assert (answer.status, answer.headers["Cache-Control"]) == (200, "no-store")
        packed = await answer.read()
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        return {item.name: (tar.extractfile(item) or io.BytesIO()).read() for item in tar.getmembers()}


@pytest.mark.usefixtures("from_roots_port")
async def test_a_node_gets_its_groups_files_its_own_and_what_lasts(house: House, tmp_path: Path) -> None:
    give_files(house, tmp_path, "$name $group $nfs $zone $address\n", vars={"nfs": "10.0.0.9", "zone": "a"})
    own = Overlay({"zone": "b"}, {"/etc/motd": NodeFile(b"hello", Laid(mode=0o600))})
    await house.store.save_node(Node(MAC, "web1", overlay=own))
    files = await files_of(house, await house.boot_path())
    assert files["etc/app.conf"] == b"web1 web 10.0.0.9 b 127.0.0.1\n"
    assert files["etc/motd"] == b"hello"
    assert set(files) == {
        "etc/app.conf",
        "etc/machine-id",
        "etc/motd",
        "etc/ssh/ssh_host_ed25519_key",
        "etc/ssh/ssh_host_ed25519_key.pub",
    }


@pytest.mark.usefixtures("from_roots_port")
async def test_what_lasts_is_the_same_in_the_next_boot(house: House) -> None:
    first = await files_of(house, await house.boot_path())
    await house.report(await house.boot_path(), stage="ready")
    second = await files_of(house, await house.boot_path())
    assert first == second


@pytest.mark.usefixtures("from_roots_port")
async def test_a_template_that_lacks_a_word_is_told_to_the_node(house: House, tmp_path: Path) -> None:
    give_files(house, tmp_path, "$nfs")
    async with house.http.get(f"{await house.boot_path()}/overlay") as answer:
        assert answer.status == 409
        assert await answer.text() == "/etc/app.conf: the template wants $nfs, which is not set\n"


@pytest.mark.usefixtures("from_roots_port")
async def test_a_file_that_is_gone_is_told_with_its_key(house: House, tmp_path: Path) -> None:
    give_files(house, tmp_path, "")
    (tmp_path / "app.conf").unlink()
    async with house.http.get(f"{await house.boot_path()}/overlay") as answer:
        told = await answer.text()
    assert (answer.status, told.startswith("group web: files./etc/app.conf: ")) == (409, True)


@pytest.mark.usefixtures("from_roots_port")
@pytest.mark.parametrize("spoil", ["AAA", ""])
async def test_a_wrong_token_gets_nothing(house: House, spoil: str) -> None:
    path = await house.boot_path()
    async with house.http.get(f"{path[:-3]}{spoil}/overlay") as answer:
        assert answer.status == 403


async def test_a_process_that_is_not_root_gets_nothing(house: House) -> None:
    """The HTTP client of this test has a port above 1023, as every ordinary program has."""
    path = await house.boot_path()
    async with house.http.get(f"{path}/overlay") as answer:
        assert (answer.status, "port below 1024" in await answer.text()) == (403, True)


@pytest.mark.net
async def test_root_is_known_by_the_port_it_asks_from(house: House) -> None:
    path = await house.boot_path()
    asked = socket.create_connection((house.http.host, house.http.port), 5, ("127.0.0.1", 1021))
    asked.sendall(f"GET {path}/overlay HTTP/1.0\r\n\r\n".encode())
    reader, writer = await asyncio.open_connection(sock=asked)
    assert (await reader.readline()).split()[1] == b"200"
    writer.close()
