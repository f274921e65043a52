"""The archive a kernel unpacks as its initramfs: cpio in the `newc` format, the same bytes every time.

Source: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst.
"""

import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import PurePosixPath

_TRAILER = "TRAILER!!!"


@dataclass(frozen=True)
class Member:
    """One entry. Owner and group are root, the time is 0, so that nothing of the building machine shows."""

    path: str
    """Relative: without a leading slash, `.` or `..`."""
    mode: int
    """Type and permissions, as in `st_mode`."""
    data: bytes = b""
    """A file's contents, or where a link points."""
    device: tuple[int, int] = (0, 0)
    """Major and minor number of a device node."""


def directory(path: str, permissions: int = 0o755) -> Member:
    """A directory."""
    return Member(path, stat.S_IFDIR | permissions)


def file(path: str, data: bytes, permissions: int = 0o644) -> Member:
    """A regular file."""
    return Member(path, stat.S_IFREG | permissions, data)


def link(path: str, target: str) -> Member:
    """A symbolic link."""
    return Member(path, stat.S_IFLNK | 0o777, target.encode())


def character_device(path: str, major: int, minor: int, permissions: int = 0o600) -> Member:
    """A character device."""
    return Member(path, stat.S_IFCHR | permissions, device=(major, minor))


def encode(members: Iterable[Member]) -> bytes:
    """Write the archive: sorted by path, missing parent directories added.

    Raises ValueError for a path that stands twice or is not relative and plain.
    """
    by_path: dict[str, Member] = {}
    for member in members:
        _refuse_odd_path(member.path)
        if member.path in by_path:
            raise ValueError(f"{member.path} stands twice in the archive")
        by_path[member.path] = member
    for parent in {parent for path in by_path for parent in _parents(path)}:
        by_path.setdefault(parent, directory(parent))
    numbers = count(1)  # one inode number each: the kernel takes equal ones for hard links
    parts = [_encode_member(by_path[path], next(numbers)) for path in sorted(by_path)]
    return b"".join([*parts, _encode_member(Member(_TRAILER, 0), 0)])


def _refuse_odd_path(path: str) -> None:
    pure = PurePosixPath(path)
    if not path or pure.is_absolute() or ".." in pure.parts or str(pure) != path or path in (".", _TRAILER):
        raise ValueError(f"{path!r} is not a plain relative path")


def _parents(path: str) -> Iterator[str]:
    return (str(parent) for parent in PurePosixPath(path).parents if str(parent) != ".")


def _encode_member(member: Member, inode: int) -> bytes:
    name = member.path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(member.mode) else 1
    # ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
    fields = (inode, member.mode, 0, 0, links, 0, len(member.data), 0, 0, *member.device, len(name), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    return _padded(header + name) + _padded(member.data)


def _padded(data: bytes) -> bytes:
    """Name and contents each end on a multiple of 4 bytes."""
    return data + b"\0" * (-len(data) % 4)
