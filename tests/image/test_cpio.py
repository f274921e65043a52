import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxeboot.image import cpio
from pxeboot.image.cpio import Member


def read(archive: bytes) -> list[Member]:
    """An independent reader of what `encode` writes: newc, by the kernel's buffer-format.rst."""
    members: list[Member] = []
    inodes: set[int] = set()
    at = 0
    while True:
        assert archive[at : at + 6] == b"070701"
        ino, mode, uid, gid, _, mtime, size, *device, name_size, _ = (
            int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)
        )
        name = archive[at + 110 : at + 110 + name_size - 1].decode()
        data_at = (at + 110 + name_size + 3) // 4 * 4
        at = (data_at + size + 3) // 4 * 4
        if name == "TRAILER!!!":
            assert at == len(archive)
            return members
        assert (uid, gid, mtime) == (0, 0, 0)
        assert ino not in inodes
        inodes.add(ino)
        members.append(Member(name, mode, archive[data_at : data_at + size], (device[2], device[3])))


NAMES = st.text(
    st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]), min_size=1, max_size=8
)
PATHS = st.lists(NAMES.filter(lambda name: name not in (".", "..")), min_size=1, max_size=4).map("/".join)
FILES = st.dictionaries(PATHS, st.binary(max_size=40), max_size=8)


@given(FILES)
def test_what_is_written_can_be_read_again(files: dict[str, bytes]) -> None:
    parents = {str(parent) for path in files for parent in Path(path).parents} - {"."}
    members = [cpio.file(path, data) for path, data in files.items() if path not in parents]
    found = read(cpio.encode(members))
    assert [member for member in found if stat.S_ISREG(member.mode)] == sorted(members, key=lambda m: m.path)
    assert {member.path for member in found if stat.S_ISDIR(member.mode)} <= parents


def test_busybox_unpacks_what_we_write(tmp_path: Path) -> None:
    archive = cpio.encode(
        [
            cpio.file("init", b"#!/bin/sh\n", 0o755),
            cpio.file("lib/odd", b"12345"),
            cpio.directory("tmp", 0o1777),
            cpio.link("bin/sh", "busybox"),
        ]
    )
    subprocess.run(["busybox", "cpio", "-i"], cwd=tmp_path, input=archive, check=True, capture_output=True)
    assert (tmp_path / "init").stat().st_mode == stat.S_IFREG | 0o755
    assert (tmp_path / "lib/odd").read_bytes() == b"12345"
    assert (tmp_path / "tmp").stat().st_mode == stat.S_IFDIR | 0o1777
    assert (tmp_path / "bin/sh").readlink() == Path("busybox")


def test_busybox_lists_a_device_node() -> None:
    archive = cpio.encode([cpio.character_device("dev/console", 5, 1)])
    listed = subprocess.run(["busybox", "cpio", "-tv"], input=archive, check=True, capture_output=True)
    assert [line.split()[0] for line in listed.stdout.decode().splitlines()] == ["drwxr-xr-x", "crw-------"]
    assert read(archive)[1].device == (5, 1)


def test_the_order_of_members_does_not_show() -> None:
    members = [cpio.file("b", b"1"), cpio.file("a/c", b"2"), cpio.directory("a", 0o700)]
    assert cpio.encode(members) == cpio.encode(reversed(members))


def test_a_directory_comes_before_its_contents() -> None:
    assert [member.path for member in read(cpio.encode([cpio.file("a/b/c", b"")]))] == ["a", "a/b", "a/b/c"]


def test_a_path_may_stand_once_only() -> None:
    with pytest.raises(ValueError, match="twice"):
        cpio.encode([cpio.file("a", b""), cpio.directory("a")])


@pytest.mark.parametrize("path", ["", "/etc", "a/../b", "a//b", "a/", ".", "TRAILER!!!"])
def test_a_path_that_is_not_plain_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="plain relative path"):
        cpio.encode([cpio.file(path, b"")])
