"""`tftp.root`: files below one folder, to be read and nothing else."""

import os
import stat
from contextlib import suppress
from pathlib import Path

from pxeboot.tftp.content import File

MAX_NAME = 255
"""Longest name looked for, bytes; also what one entry of a folder may have on Linux."""


class Folder:
    """Finds files by the names that clients use; in any case of letters where the exact one is missing, as
    GRUB and shim vary it.
    """

    def __init__(self, root: Path) -> None:
        """Raises OSError where there is no such folder."""
        self._root = root.resolve(strict=True)
        next(self._root.iterdir(), None)

    def open(self, name: str) -> File | None:
        """The file of that name, or None where there is none that may be read. May wait for the disk.

        Links are followed, but what is outside the root stays outside: where an opened file really is, the
        kernel is asked, so no link can be turned around between a check and its use.
        """
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if not parts or ".." in parts or "\0" in name or len(os.fsencode(name)) > MAX_NAME:
            return None
        found = self._open(self._root.joinpath(*parts))
        if found is not None:
            return found
        path = _in_any_case(self._root, parts)
        return None if path is None else self._open(path)

    def _open(self, path: Path) -> File | None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError:
            return None
        with suppress(OSError):
            really = Path(f"/proc/self/fd/{descriptor}").readlink()
            if really.is_relative_to(self._root) and stat.S_ISREG(os.fstat(descriptor).st_mode):
                return File(descriptor)
        os.close(descriptor)
        return None


def _in_any_case(path: Path, parts: list[str]) -> Path | None:
    """The path below `path` whose parts are these but for their case; the first by name, of several."""
    for part in parts:
        try:
            names = [entry.name for entry in path.iterdir()]
        except OSError:
            return None
        alike = sorted(name for name in names if name.casefold() == part.casefold())
        if not alike:
            return None
        path /= part if part in alike else alike[0]
    return path
