import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pxeboot.tftp.content import whole
from pxeboot.tftp.folder import Folder


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    root = tmp_path / "root"
    (root / "EFI" / "boot").mkdir(parents=True)
    (root / "EFI" / "boot" / "GrubX64.efi").write_bytes(b"grub")
    (root / "plain").write_bytes(b"plain")
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "rootless").mkdir()
    (tmp_path / "rootless" / "file").write_bytes(b"beside")
    (root / "out").symlink_to(tmp_path / "secret")
    (root / "beside").symlink_to("../rootless")
    (root / "up").symlink_to("..")
    (root / "within").symlink_to("EFI/boot/GrubX64.efi")
    (root / "around").symlink_to("../root/plain")
    os.mkfifo(root / "pipe")
    yield root


def read(root: Path, name: str) -> bytes | None:
    file = Folder(root).open(name)
    if file is None:
        return None
    with closing(file):
        return whole(file)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("plain", b"plain"),
        ("./plain", b"plain"),
        ("EFI/boot/GrubX64.efi", b"grub"),
        ("EFI//boot/GrubX64.efi", b"grub"),
        ("efi/BOOT/grubx64.EFI", b"grub"),
        ("PLAIN", b"plain"),
        ("within", b"grub"),
        ("around", b"plain"),
        ("up/root/plain", b"plain"),  # it comes back to where it may be read
    ],
)
def test_files_below_the_root_are_found(root: Path, name: str, content: bytes) -> None:
    assert read(root, name) == content


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "/",
        "none",
        "EFI",
        "pipe",
        "out",
        "OUT",
        "beside/file",
        "up/secret",
        "../secret",
        "EFI/../../secret",
        "EFI/../plain",
        "../rootless/file",
        "pla\0in",
        "plain/more",
        "x" * 5000,
        "x/" * 200 + "y",
    ],
)
def test_nothing_else_is(root: Path, name: str) -> None:
    assert read(root, name) is None


def test_the_exact_name_comes_before_another_case(root: Path) -> None:
    (root / "GRUB.CFG").write_bytes(b"upper")
    (root / "grub.cfg").write_bytes(b"lower")
    assert [read(root, name) for name in ("grub.cfg", "GRUB.CFG", "Grub.cfg")] == [
        b"lower",
        b"upper",
        b"upper",
    ]


def test_no_descriptor_is_left_by_what_is_refused(root: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for name in ("out", "beside/file", "pipe", "EFI"):
        assert read(root, name) is None
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_root_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Folder(tmp_path / "absent")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        Folder(tmp_path / "file")
