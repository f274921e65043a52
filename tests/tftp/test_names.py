import time
from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from pxeboot.errors import PxebootError
from pxeboot.image.bootfiles import BootFiles
from pxeboot.inventory.boot import TRANSFERS_KEPT, Stage, from_json, to_json
from pxeboot.orders import Orders
from pxeboot.tftp.content import Content, whole
from pxeboot.tftp.folder import Folder
from pxeboot.tftp.names import Names
from pxeboot.tftp.server import TransferRecord
from pxeboot.web.token import Claim, sign
from tests.parts import INITRD, KERNEL, ROOT
from tests.web.house import LOADER, MAC, SECRET, House, open_house

SERVER, PEER = IPv4Address("127.0.0.1"), "127.0.0.150"
RECORD = TransferRecord(PEER, "file", {"blksize": "9000"}, {"blksize": 1468}, 1000, 2, 0.12345, "done")


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    (tmp_path / "tftp").mkdir()
    (tmp_path / "tftp" / "file").write_bytes(b"in the folder")
    (tmp_path / "tftp" / LOADER.name).write_bytes(b"not this one")
    async with open_house(tmp_path) as house:
        yield house


@pytest.fixture
def names(house: House, tmp_path: Path) -> Names:
    orders = Orders(house.site, house.store, house.progress, house.library, SECRET)
    loaders = {LOADER.name: LOADER}
    folder = Folder(tmp_path / "tftp")
    files = BootFiles(tmp_path / "initrds")
    return Names(loaders, folder, orders, house.library, files, house.store, house.progress, SECRET)


def read(content: Content | None) -> bytes | None:
    if content is None:
        return None
    try:
        return whole(content)
    finally:
        content.close()


async def test_a_loader_comes_before_a_file_of_its_name(names: Names) -> None:
    assert read(await names.content(SERVER, LOADER.name, PEER)) == LOADER.data
    assert read(await names.content(SERVER, "file", PEER)) == b"in the folder"
    assert await names.content(SERVER, "none", PEER) is None
    names.folder = None
    assert await names.content(SERVER, "file", PEER) is None


async def test_a_machines_pxelinux_configuration_is_made_for_it(names: Names) -> None:
    text = read(await names.content(SERVER, f"pxelinux.cfg/01-{MAC.dashed}", PEER)) or b""
    assert f"BOOTIF=01-{MAC.dashed}".encode() in text
    assert await names.content(SERVER, "pxelinux.cfg/01-52-54-00-99-99-98", PEER) is None


async def test_artefacts_have_the_names_of_http(names: Names, house: House) -> None:
    path = (await house.boot_path()).lstrip("/")
    contents = {"kernel": KERNEL, "initrd": INITRD, "root": ROOT}
    for name, expected in contents.items():
        assert read(await names.content(SERVER, f"{path}/{name}", PEER)) == expected
    assert await house.stage() is Stage.INITRD
    assert await names.content(SERVER, f"{path}/event", PEER) is None


async def test_a_token_must_be_ours_and_of_this_boot(names: Names, house: House) -> None:
    path = (await house.boot_path()).lstrip("/")
    with pytest.raises(PxebootError, match="refused"):
        await names.content(SERVER, f"{path[:-4]}AAAA/kernel", PEER)
    earlier = sign(Claim("00" * 8, MAC, house.image, int(time.time()) + 60), SECRET)
    with pytest.raises(PxebootError, match="earlier boot"):
        await names.content(SERVER, f"boot/{earlier}/kernel", PEER)


async def test_a_transfer_stands_in_the_boot_record_of_its_machine(
    names: Names, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = (await house.boot_path()).removeprefix("/boot/")

    async def machine_at(address: IPv4Address) -> object:
        return MAC if address == IPv4Address(PEER) else None

    monkeypatch.setattr(house.progress, "machine_at", machine_at)
    await names.note(replace(RECORD, name=f"boot/{token}/kernel"))
    await names.note(replace(RECORD, peer="127.0.0.99"))  # nobody's
    boot = await house.store.boot(MAC)
    assert boot is not None
    assert boot.transfers == (
        {
            "name": "kernel",
            "asked": {"blksize": "9000"},
            "granted": {"blksize": 1468},
            "bytes": 1000,
            "retransmissions": 2,
            "seconds": 0.123,
            "result": "done",
        },
    )
    assert (boot.sent["tftp kernel"], boot.retries) == (1000, 2)
    assert from_json(to_json(boot)) == boot
    for _ in range(TRANSFERS_KEPT):
        await names.note(RECORD)
    boot = await house.store.boot(MAC)
    assert boot is not None
    assert [item["name"] for item in boot.transfers] == ["file"] * TRANSFERS_KEPT
