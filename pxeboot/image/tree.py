"""Walking, weighing and thinning a tree of files: it is full of absolute links, none of which is followed."""

import fnmatch
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

EPOCH = 1735689600
"""2025-01-01, in Unix seconds: the time of all that is made while building. A date of its own would give two
equal builds two digests; files that came in packages keep the time they have there."""
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


def settle_times(tree: Path, built_since: float) -> None:
    """Give EPOCH to all that is newer than `built_since`, Unix seconds: building has made it."""
    for path in (tree, *walk(tree)):
        if path.lstat().st_mtime >= built_since:
            os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)


def follow(tree: Path, name: str) -> Path | None:
    """Where a name leads inside the tree, as in a chroot, all links followed; None when in circles.

    It need not exist. Source: path_resolution(7).
    """
    path, links = tree, 0
    waiting = name.split("/")[::-1]
    while waiting:
        part = waiting.pop()
        candidate = path / part
        if part == "..":
            path = path if path == tree else path.parent
        elif part in ("", ".") or not candidate.is_symlink():
            path = candidate
        elif (links := links + 1) > _MAX_LINKS:
            return None
        else:
            target = str(candidate.readlink())
            path = tree if target.startswith("/") else path
            waiting += target.split("/")[::-1]
    return path


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
