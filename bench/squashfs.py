"""The root of an image as SquashFS, by compression and size of blocks: bytes, and the time to read it back.

Each file is mounted by the kernel and read with cold caches: single pages at random places of systemd,
Apache, PHP and libraries, as the start of a program reads them, then every file in order.
"""

import argparse
import asyncio
import os
import platform
import random
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

from pxeboot.image import squashfs
from pxeboot.image.command import run
from pxeboot.image.library import Library
from pxeboot.image.recipe import SquashFs
from pxeboot.image.tree import EPOCH

SETTINGS = [
    *(SquashFs(level=level) for level in (9, 19)),
    *(SquashFs(block_kib=size) for size in (128, 256, 512, 1024)),
    *(SquashFs(compression="xz", block_kib=size) for size in (128, 256, 512, 1024)),
]
START = (
    "usr/lib/systemd/systemd", "usr/lib/systemd/systemd-journald", "usr/lib/*/systemd/*.so",
    "usr/bin/bash",
    "usr/sbin/apache2", "usr/lib/apache2/modules/*.so", "usr/lib/php/*/*.so", "usr/lib/*/lib*.so.*",
    "etc/**/*",
)  # fmt: skip
PAGE = 4096
PAGES = 4000


@contextmanager
def mounted(image: Path, where: Path) -> Iterator[None]:
    """The image, mounted read-only, and unmounted however this ends."""
    subprocess.run(["mount", "-t", "squashfs", "-o", "loop,ro", image, where], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", where], check=True)


def read_start(root: Path) -> None:
    """Single pages at places that are the same in each run."""
    files = sorted({path for pattern in START for path in root.glob(pattern) if path.is_file()})
    places = random.Random(1)  # noqa: S311  the same each time is what is wanted
    for path in places.choices(files, weights=[path.stat().st_size for path in files], k=PAGES):
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        os.pread(descriptor, PAGE, places.randrange(path.stat().st_size // PAGE + 1) * PAGE)
        os.close(descriptor)


def read_all(root: Path) -> None:
    """Every file from its beginning to its end."""
    for path in sorted(root.rglob("*")):
        if path.is_file() and not path.is_symlink():
            path.read_bytes()


def seconds(image: Path, work: Path, read: Callable[[Path], None]) -> float:
    """CPU time of a read with cold caches: the kernel unpacks in the process that reads."""
    with mounted(image, work):
        os.sync()
        Path("/proc/sys/vm/drop_caches").write_text("3")
        image.read_bytes()  # on a node the packed file is in RAM
        began = time.process_time()
        read(work)
        return time.process_time() - began


async def main() -> None:
    """Print a table, and write it to `bench/results`."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--state-dir", type=Path, default=Path(".demo"))
    options.add_argument("--image", default="web")
    options.add_argument("--rounds", type=int, default=3)
    chosen = options.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was made is removed then too
    source = Library(chosen.state_dir / "images").resolve(chosen.image).root
    with tempfile.TemporaryDirectory(prefix="bench-squashfs-") as name:
        folder = Path(name)
        tree, work = folder / "tree", folder / "mounted"
        work.mkdir()
        await run("unsquashfs", "-q", "-n", "-d", tree, source)
        packed = [await pack(tree, folder / f"{index}.squashfs", item) for index, item in enumerate(SETTINGS)]
        taken = [[(seconds(image, work, read_start), seconds(image, work, read_all)) for image in packed]
                 for _ in range(chosen.rounds)]  # fmt: skip
        lines = [
            row(item, image.stat().st_size, [round_[index] for round_ in taken])
            for index, (item, image) in enumerate(zip(SETTINGS, packed, strict=True))
        ]
    report(lines)


async def pack(tree: Path, target: Path, settings: SquashFs) -> Path:
    """Make the SquashFS file."""
    await squashfs.make(tree, target, settings, EPOCH, lambda share: None)
    return target


def row(item: SquashFs, size: int, taken: list[tuple[float, float]]) -> str:
    """One line of the table, with medians."""
    start, everything = (statistics.median(column) for column in zip(*taken, strict=True))
    name = f"zstd {item.level}" if item.compression == "zstd" else "xz, x86 filter"
    return (
        f"| {name} | {item.block_kib} KiB | {size / 1e6:.1f} MB "
        f"| {start * 1e6 / PAGES:.0f} µs | {everything:.2f} s |"
    )


def report(lines: list[str]) -> None:
    """Print and keep the table."""
    head = (
        "# SquashFS: compression and size of blocks\n\n"
        "`python -m bench.squashfs`: the root of the image `web`, mounted by the kernel, page caches cold\n"
        "and the packed file in memory; CPU time, medians of three rounds in turns. `a page`: 4 KiB at a\n"
        "random place of what systemd, Apache and PHP are made of; `all`: every file, in order.\n\n"
        f"{date.today()}, {os.cpu_count()} cores, Linux {platform.release()}.\n\n"
        "| compression | blocks | bytes | a page | all |\n|---|---|---|---|---|\n"
    )
    text = head + "\n".join(lines) + "\n"
    print(text)
    Path(f"bench/results/squashfs-{date.today()}.md").write_text(text)


if __name__ == "__main__":
    asyncio.run(main())
