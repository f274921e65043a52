"""What nodes load: the image's own files, and the initrd with this server's authority."""

import hashlib
import subprocess
from pathlib import Path

import pytest

from pxeboot.image import cpio
from pxeboot.image.bootfiles import AUTHORITY, BootFiles, with_authority
from pxeboot.image.library import Library
from tests.parts import INITRD, put_image


async def test_without_an_authority_all_files_are_the_images(tmp_path: Path) -> None:
    image = put_image(Library(tmp_path / "images"))
    files = BootFiles(tmp_path / "initrds")
    for name in ("kernel", "initrd", "root"):
        found = await files.find(image, name)
        facts = getattr(image.manifest.artefacts, name)
        assert (found.path, found.sha256, found.size) == (getattr(image, name), facts.sha256, facts.size)


async def test_the_initrd_with_the_authority_has_its_own_digest_and_size(tmp_path: Path) -> None:
    image = put_image(Library(tmp_path / "images"))
    files = BootFiles(tmp_path / "initrds", b"PEM\n")
    found = await files.find(image, "initrd")
    data = found.path.read_bytes()
    assert (found.size, found.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert data.startswith(INITRD)
    assert (await files.find(image, "initrd")) is found
    assert image.initrd.read_bytes() == INITRD
    files.clear()
    assert not found.path.exists()


@pytest.mark.parametrize("odd", range(4))
def test_the_second_archive_begins_where_the_kernel_looks_for_it(tmp_path: Path, odd: int) -> None:
    joined = with_authority(b"x" * (100 + odd), b"PEM\n")
    at = joined.index(b"070701")
    assert at % 4 == 0
    assert set(joined[100 + odd : at]) <= {0}
    subprocess.run(["busybox", "cpio", "-i", "-d"], input=joined[at:], cwd=tmp_path, check=True)
    assert (tmp_path / AUTHORITY).read_bytes() == b"PEM\n"
    assert cpio.encode([cpio.file(AUTHORITY, b"PEM\n")]) == joined[at:]
