"""The root file system as one compressed file, the same bytes for the same tree."""

import re
from collections.abc import Callable
from pathlib import Path

from pxeboot.image.command import run
from pxeboot.image.recipe import SquashFs

_PERCENTAGE = re.compile(r" (\d+)%$")


def arguments(tree: Path, target: Path, settings: SquashFs, epoch: int) -> list[str]:
    """The command. Source: mksquashfs(1).

    The times of files are kept, since web servers make their ETags of them. A filter for x86 code makes xz
    try each block twice and keep the smaller result.
    """
    options = {
        "zstd": ("-Xcompression-level", str(settings.level)),
        "xz": ("-Xbcj", "x86"),
    }[settings.compression]
    return [
        "mksquashfs", str(tree), str(target), "-noappend", "-mkfs-time", str(epoch),
        "-comp", settings.compression, "-b", f"{settings.block_kib}K", *options,
    ]  # fmt: skip


def share(line: str) -> float | None:
    """How much is done, 0 to 1, when `line` is mksquashfs' progress bar."""
    found = _PERCENTAGE.search(line)
    return int(found[1]) / 100 if found else None


async def make(
    tree: Path, target: Path, settings: SquashFs, epoch: int, report: Callable[[float | None], None]
) -> None:
    """Write `tree` into `target`, with times up to `epoch`, in Unix seconds. Raises PxebootError."""

    def on_line(line: str) -> None:
        if (done := share(line)) is not None:
            report(done)

    await run(*arguments(tree, target, settings, epoch), on_line=on_line)
