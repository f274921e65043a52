"""The initial RAM file system: busybox, curl, kernel modules and our scripts, the same bytes each time."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from pxeboot.image import cpio
from pxeboot.image.command import SEARCH_PATH, run
from pxeboot.image.kernel import Kernel, ModuleIndex

MODULE_LIST = "modules"
"""In the folder of scripts: the modules every initrd has; `#` begins a comment."""

_INDEXES = ("modules.dep", "modules.alias", "modules.builtin", "modules.softdep")
"""What busybox reads; kmod's binary indexes would be 1 MB more."""

_FRAME = (
    *(cpio.directory(path) for path in ("dev", "etc", "mnt", "proc", "run", "sbin", "sys")),
    cpio.directory("root", 0o700),
    cpio.directory("tmp", 0o1777),
    cpio.character_device("dev/console", 5, 1),  # the kernel opens it for init, before anything is mounted
    cpio.character_device("dev/null", 1, 3, 0o666),
    cpio.link("bin/sh", "busybox"),
    cpio.link("sbin/modprobe", "../bin/busybox"),  # where the kernel itself looks for it
)


def module_names(scripts: Path) -> list[str]:
    """The module list that comes with the package."""
    lines = (scripts / MODULE_LIST).read_text().splitlines()
    return [name for line in lines for name in line.partition("#")[0].split()]


async def make(kernel: Kernel, curl: Path, scripts: Path, target: Path, scratch: Path) -> None:
    """Write the compressed archive to `target`. Raises PxebootError."""
    tree = scratch / "initrd"
    if kernel.modular:
        await kernel.install_modules(ModuleIndex.read(kernel).closure(module_names(scripts)), tree)
    plain = scratch / "initrd.cpio"
    plain.write_bytes(cpio.encode(_members(curl, scripts, tree, kernel.release)))
    # one thread: how many there are would show in the bytes
    await run("zstd", "-q", "-19", "--single-thread", plain, "-o", target)


def _members(curl: Path, scripts: Path, tree: Path, release: str) -> Iterator[cpio.Member]:
    yield from _FRAME
    yield cpio.file("bin/busybox", _find("busybox").read_bytes(), 0o755)
    yield cpio.file("bin/curl", curl.read_bytes(), 0o755)
    yield from _scripts(scripts)
    yield from _modules(tree, release)


def _find(program: str) -> Path:
    return next(path for folder in SEARCH_PATH.split(":") if (path := Path(folder) / program).exists())


def _scripts(folder: Path) -> Iterator[cpio.Member]:
    """`init` is /init, everything else lies in /lib/pxeboot."""
    for path in _files(folder):
        name = str(path.relative_to(folder))
        if name == MODULE_LIST:
            continue
        data = path.read_bytes()
        mode = 0o755 if data.startswith(b"#!") else 0o644  # a wheel may lose the bits of the checkout
        yield cpio.file("init" if name == "init" else f"lib/pxeboot/{name}", data, mode)


def _modules(tree: Path, release: str) -> Iterator[cpio.Member]:
    folder = tree / "lib/modules" / release
    for path in _files(folder):
        if path.parent != folder or path.name in _INDEXES:
            yield cpio.file(str(path.relative_to(tree)), path.read_bytes())


def _files(folder: Path) -> Iterable[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())
