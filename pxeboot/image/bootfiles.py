"""The files of a boot: those of its image, the initrd with the authority that this server is known by.

Images are the same wherever they are served; the authority is this server's. So it comes as a second archive
after the image's own, which the kernel unpacks too (Documentation/driver-api/early-userspace/
buffer-format.rst).
"""

import asyncio
import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from pxeboot.image import cpio
from pxeboot.image.library import Image

AUTHORITY = "lib/pxeboot/authority.pem"
"""Where `initrd/init` finds it."""
_ALIGNMENT = 4  # an archive begins on a multiple of it; what is between is zeros


@dataclass(frozen=True, slots=True)
class BootFile:
    """A file that does not change."""

    path: Path
    sha256: str
    size: int


class BootFiles:
    """What nodes load. Initrds with the authority are made when first asked for, and kept in `folder`."""

    def __init__(self, folder: Path, authority: bytes | None = None) -> None:
        self._folder = folder
        self._authority = authority
        self._initrds: dict[str, BootFile] = {}
        self._making = asyncio.Lock()

    async def find(self, image: Image, name: str) -> BootFile:
        """`kernel`, `initrd` or `root` of an image. Raises OSError."""
        if name == "initrd" and self._authority is not None:
            return await self._initrd(image, self._authority)
        facts = getattr(image.manifest.artefacts, name)
        return BootFile(getattr(image, name), facts.sha256, facts.size)

    def clear(self) -> None:
        """Forget the initrds of an earlier server, whose authority may have been another."""
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _initrd(self, image: Image, authority: bytes) -> BootFile:
        async with self._making:
            known = self._initrds.get(image.digest)
            if known is None:
                known = await asyncio.to_thread(_join, image, authority, self._folder / image.digest)
                self._initrds[image.digest] = known
        return known


def _join(image: Image, authority: bytes, target: Path) -> BootFile:
    data = with_authority(image.initrd.read_bytes(), authority)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
    return BootFile(target, hashlib.sha256(data).hexdigest(), len(data))


def with_authority(initrd: bytes, authority: bytes) -> bytes:
    """An initrd, compressed or not, and after it an archive with the authority's certificate, PEM."""
    padding = b"\0" * (-len(initrd) % _ALIGNMENT)
    return initrd + padding + cpio.encode([cpio.file(AUTHORITY, authority)])
