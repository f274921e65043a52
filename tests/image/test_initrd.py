import subprocess
from pathlib import Path

import pytest

from pxeboot.errors import PxebootError
from pxeboot.image import initrd
from pxeboot.image.kernel import Kernel

pytestmark = pytest.mark.net


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    """A kernel package with one module, a stand-in without code, and one part of the kernel."""
    modules = tmp_path / "kernel/lib/modules/6.1-test"
    (modules / "kernel/fs").mkdir(parents=True)
    (modules / "kernel/fs/squashfs.ko").write_bytes(b"module")
    (modules / "modules.dep").write_text("kernel/fs/squashfs.ko:\n")
    (modules / "modules.builtin").write_text("kernel/drivers/loop.ko\n")
    for name in ("modules.softdep", "modules.alias", "modules.order", "modules.builtin.modinfo"):
        (modules / name).touch()
    return Kernel(tmp_path / "kernel")


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    folder = tmp_path / "scripts"
    (folder / "sub").mkdir(parents=True)
    (folder / "init").write_text("#!/bin/sh\n")
    (folder / "agent").write_text("#!/bin/sh\n")
    (folder / "sub/part.sh").write_text("x=1\n")
    (folder / "modules").write_text("squashfs loop # of the root\n\n# nothing\n")
    return folder


async def make(kernel: Kernel, scripts: Path, folder: Path) -> bytes:
    scratch = folder / "scratch"
    scratch.mkdir(parents=True)
    curl = folder / "curl"
    curl.write_text("curl")
    await initrd.make(kernel, curl, scripts, folder / "initrd", scratch)
    return (folder / "initrd").read_bytes()


async def test_the_initrd_has_what_init_needs(kernel: Kernel, scripts: Path, tmp_path: Path) -> None:
    packed = await make(kernel, scripts, tmp_path / "one")
    plain = subprocess.run(["zstd", "-dc"], input=packed, check=True, capture_output=True).stdout
    root = tmp_path / "unpacked"
    root.mkdir()
    subprocess.run(["busybox", "cpio", "-i"], cwd=root, input=plain, check=True, capture_output=True)
    modes = {
        str(path.relative_to(root)): oct(path.lstat().st_mode & 0o777)
        for path in root.rglob("*")
        if path.is_file() and not path.is_symlink()
    }
    assert modes == {
        "init": "0o755",
        "bin/busybox": "0o755",
        "bin/curl": "0o755",
        "lib/pxeboot/agent": "0o755",
        "lib/pxeboot/sub/part.sh": "0o644",
        "lib/modules/6.1-test/kernel/fs/squashfs.ko": "0o644",
        "lib/modules/6.1-test/modules.dep": "0o644",
        "lib/modules/6.1-test/modules.alias": "0o644",
        "lib/modules/6.1-test/modules.softdep": "0o644",
        "lib/modules/6.1-test/modules.builtin": "0o644",
    }
    assert (root / "bin/sh").resolve() == root / "bin/busybox"
    assert (root / "sbin/modprobe").resolve() == root / "bin/busybox"
    assert (root / "dev/console").is_char_device()
    assert "squashfs.ko" in (root / "lib/modules/6.1-test/modules.dep").read_text()


async def test_two_builds_give_the_same_bytes(kernel: Kernel, scripts: Path, tmp_path: Path) -> None:
    one = await make(kernel, scripts, tmp_path / "one")
    assert one == await make(kernel, scripts, tmp_path / "two")


async def test_a_module_found_nowhere_is_refused(kernel: Kernel, scripts: Path, tmp_path: Path) -> None:
    (scripts / "modules").write_text("squashfs\ne1000x\n")
    with pytest.raises(PxebootError, match="no module 'e1000x'"):
        await make(kernel, scripts, tmp_path / "one")
