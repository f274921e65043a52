"""A small disk, to be filled."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of `size`, as tmpfs(5) writes it, mounted on a new folder; needs root."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def fill(folder: Path, spare: int = 0) -> Path:
    """Take all the room in the file system of `folder` but for so many bytes; the file that has it."""
    rest = folder / "rest"
    with pytest.raises(OSError, match="No space"), rest.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(65536))
    os.truncate(rest, rest.stat().st_size - spare)
    return rest


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every file below, with its bytes; folders have None."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }
