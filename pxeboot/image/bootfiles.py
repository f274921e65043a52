"""The files of a boot: those of its image, the initrd with what this server and the node's group add to it.

Images are the same wherever they are served; the authority that a server is known by and a group's files are
not of them. So they come as a second archive after the image's own, which the kernel unpacks too
(Documentation/driver-api/early-userspace/buffer-format.rst).
"""

import asyncio
import hashlib
import shutil
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pxeboot.errors import PxebootError
from pxeboot.image import cpio
from pxeboot.image.library import Image
from pxeboot.mac import Mac

AUTHORITY = "lib/pxeboot/authority.pem"
"""Where `initrd/init` finds it."""
_ALIGNMENT = 4  # an archive begins on a multiple of it; what is between is zeros


@dataclass(frozen=True, slots=True)
class BootFile:
    """A file that does not change."""

    path: Path
    sha256: str
    size: int


More = Callable[[Mac], Awaitable[Mapping[str, Path]]]
"""What a node's group adds to its initrd: local files, by path inside."""


async def _nothing(mac: Mac) -> Mapping[str, Path]:
    return {}


class BootFiles:
    """What nodes load. Initrds with additions are made when first asked for, and kept in `folder`."""

    def __init__(self, folder: Path, authority: bytes | None = None, more: More = _nothing) -> None:
        self._folder = folder
        self._authority = authority
        self._more = more
        self._initrds: dict[tuple[object, ...], BootFile] = {}
        self._making = asyncio.Lock()

    async def find(self, image: Image, name: str, mac: Mac) -> BootFile:
        """`kernel`, `initrd` or `root` of an image for a node. Raises PxebootError where one is missing."""
        if name == "initrd":
            more = await self._more(mac)
            if more or self._authority is not None:
                return await self._initrd(image, more)
        facts = getattr(image.manifest.artefacts, name)
        return BootFile(getattr(image, name), facts.sha256, facts.size)

    def clear(self) -> None:
        """Forget the initrds of an earlier server, whose authority may have been another."""
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _initrd(self, image: Image, more: Mapping[str, Path]) -> BootFile:
        added = await asyncio.to_thread(read_additions, more)
        if self._authority is not None:
            added[AUTHORITY] = self._authority
        key = (image.digest, *sorted((path, hashlib.sha256(data).digest()) for path, data in added.items()))
        async with self._making:
            known = self._initrds.get(key)
            if known is None:
                target = self._folder / f"{image.digest}-{len(self._initrds)}"
                known = await asyncio.to_thread(_join, image, added, target)
                self._initrds[key] = known
        return known


def read_additions(more: Mapping[str, Path]) -> dict[str, bytes]:
    """A group's files for the initrd, by path inside. Raises PxebootError naming the one that is missing."""
    found = {}
    for inside, source in more.items():
        try:
            found[inside.lstrip("/")] = source.read_bytes()
        except OSError as error:
            raise PxebootError(
                f"initrd.{inside}: {source}: {error.strerror}", "paths are relative to the configuration file"
            ) from error
    return found


def _join(image: Image, added: Mapping[str, bytes], target: Path) -> BootFile:
    data = with_additions(image.initrd.read_bytes(), added)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
    return BootFile(target, hashlib.sha256(data).hexdigest(), len(data))


def with_additions(initrd: bytes, added: Mapping[str, bytes]) -> bytes:
    """An initrd, compressed or not, and after it an archive with more files by path."""
    padding = b"\0" * (-len(initrd) % _ALIGNMENT)
    return initrd + padding + cpio.encode(cpio.file(path, data) for path, data in added.items())
