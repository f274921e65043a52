"""Walking, weighing and thinning a tree of files: it is full of absolute links, none of which is followed."""

import fnmatch
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

_MAX_LINKS = 40
"""As Linux has it: path_resolution(7)."""


def walk(folder: Path) -> Iterator[Path]:
    """Everything below a folder, a folder before its contents, which may be deleted meanwhile."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        path = Path(entry.path)
        yield path
        if entry.is_dir(follow_symlinks=False) and path.is_dir():
            yield from walk(path)


def remove(
    tree: Path, patterns: Iterable[str], keep: Iterable[str] = (), keep_directories: bool = False
) -> None:
    """Delete what matches `patterns` and none of `keep`. A `*` matches slashes too."""
    wanted, kept = _pattern(patterns), _pattern(keep)
    for path in walk(tree):
        name = f"/{path.relative_to(tree)}"
        if not wanted.match(name) or kept.match(name):
            continue
        if not stat.S_ISDIR(path.lstat().st_mode):
            path.unlink()
        elif not keep_directories:
            shutil.rmtree(path)


def _pattern(patterns: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(fnmatch.translate, patterns)) or r"(?!)")


def inside(tree: Path, path: Path) -> Path | None:
    """What a link means in the running system; None when that is outside or nowhere.

    Only links at the end of the path are followed, not those of its folders.
    """
    for _ in range(_MAX_LINKS):
        if not path.is_symlink():
            return path
        target = path.readlink()
        base = tree if target.is_absolute() else path.parent
        path = Path(os.path.normpath(f"{base}/{target}"))
        if not path.is_relative_to(tree):
            return None
    return None


def sizes(tree: Path) -> dict[str, int]:
    """The bytes of every regular file, by path below the tree; each counted once whatever names it has."""
    found: dict[str, int] = {}
    seen: set[int] = set()
    for path in walk(tree):
        status = path.lstat()
        if stat.S_ISREG(status.st_mode) and status.st_ino not in seen:
            seen.add(status.st_ino)
            found[str(path.relative_to(tree))] = status.st_size
    return found


def unpacked_bytes(tree: Path) -> int:
    """The sum of `sizes`."""
    return sum(sizes(tree).values())
