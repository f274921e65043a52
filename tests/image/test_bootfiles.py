"""What nodes load: the image's own files, and the initrd with this server's authority."""

import hashlib
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from pxeboot.errors import PxebootError
from pxeboot.image import cpio
from pxeboot.image.bootfiles import AUTHORITY, BootFiles, with_additions
from pxeboot.image.library import Library
from pxeboot.mac import Mac
from tests.parts import INITRD, put_image

MAC, OTHER = Mac("52:54:00:00:00:01"), Mac("52:54:00:00:00:02")


async def test_without_an_authority_all_files_are_the_images(tmp_path: Path) -> None:
    image = put_image(Library(tmp_path / "images"))
    files = BootFiles(tmp_path / "initrds")
    for name in ("kernel", "initrd", "root"):
        found = await files.find(image, name, MAC)
        facts = getattr(image.manifest.artefacts, name)
        assert (found.path, found.sha256, found.size) == (getattr(image, name), facts.sha256, facts.size)


async def test_the_initrd_with_the_authority_has_its_own_digest_and_size(tmp_path: Path) -> None:
    image = put_image(Library(tmp_path / "images"))
    files = BootFiles(tmp_path / "initrds", b"PEM\n")
    found = await files.find(image, "initrd", MAC)
    data = found.path.read_bytes()
    assert (found.size, found.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert data.startswith(INITRD)
    assert (await files.find(image, "initrd", MAC)) is found
    assert image.initrd.read_bytes() == INITRD
    files.clear()
    assert not found.path.exists()


@pytest.mark.parametrize("odd", range(4))
def test_the_second_archive_begins_where_the_kernel_looks_for_it(tmp_path: Path, odd: int) -> None:
    joined = with_additions(b"x" * (100 + odd), {AUTHORITY: b"PEM\n"})
    at = joined.index(b"070701")
    assert at % 4 == 0
    assert set(joined[100 + odd : at]) <= {0}
    subprocess.run(["busybox", "cpio", "-i", "-d"], input=joined[at:], cwd=tmp_path, check=True)
    assert (tmp_path / AUTHORITY).read_bytes() == b"PEM\n"
    assert cpio.encode([cpio.file(AUTHORITY, b"PEM\n")]) == joined[at:]


async def test_a_group_adds_files_to_the_initrd_of_its_nodes_only(tmp_path: Path) -> None:
    image = put_image(Library(tmp_path / "images"))
    firmware = tmp_path / "bnx2.fw"
    firmware.write_bytes(b"one")

    async def more(mac: Mac) -> Mapping[str, Path]:
        return {"/lib/firmware/bnx2.fw": firmware} if mac == MAC else {}

    files = BootFiles(tmp_path / "initrds", None, more)
    found = await files.find(image, "initrd", MAC)
    assert found.path.read_bytes().endswith(cpio.encode([cpio.file("lib/firmware/bnx2.fw", b"one")]))
    assert (await files.find(image, "initrd", MAC)) is found
    assert (await files.find(image, "initrd", OTHER)).path == image.initrd
    firmware.write_bytes(b"two")
    changed = await files.find(image, "initrd", MAC)
    assert (changed.sha256 != found.sha256, found.path.exists()) == (True, True)  # somebody may be loading it
    firmware.unlink()
    with pytest.raises(PxebootError, match=r"initrd\./lib/firmware/bnx2\.fw: .*No such file"):
        await files.find(image, "initrd", MAC)
