"""One image as one file, to be carried to another library: a tar of the entry's files, uncompressed."""

import hashlib
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from pxeboot.errors import PxebootError
from pxeboot.image import signature
from pxeboot.image.library import MANIFEST, Draft, Image, Library
from pxeboot.image.manifest import Artefact, Manifest
from pxeboot.image.signature import Signature

Report = Callable[[float | None], None]
"""Told the share that is done, 0 to 1."""

_PIECE = 1 << 20
_SMALL = 1 << 24
"""No manifest is larger, bytes."""


def export(image: Image, target: Path, report: Report) -> None:
    """Write the image to `target`, which is whole or not there. Raises PxebootError."""
    fresh = target.with_name(f".{target.name}.new")
    try:
        with tarfile.open(fresh, "w", format=tarfile.PAX_FORMAT) as archive:
            for name in _present(image.path):
                _add(archive, image.path / name, report)
        with fresh.open("rb") as file:
            os.fsync(file.fileno())
        fresh.replace(target)
    except OSError as error:
        raise PxebootError(
            f"{target} cannot be written: {error.strerror}", "name a file elsewhere"
        ) from error
    finally:
        fresh.unlink(missing_ok=True)


def _present(folder: Path) -> list[str]:
    """The manifest comes first, so that the rest can be checked as it is read."""
    return [name for name in (MANIFEST, signature.FILE_NAME, *_FILES.values()) if (folder / name).exists()]


_FILES = {"kernel": "kernel", "initrd": "initrd", "root": "root.squashfs"}
"""The name of each artefact's file."""


def _add(archive: tarfile.TarFile, path: Path, report: Report) -> None:
    member = tarfile.TarInfo(path.name)
    member.size, member.mode = path.stat().st_size, 0o644
    with path.open("rb") as file:
        archive.addfile(member, _Reported(file, member.size, report))  # type: ignore[arg-type]


class _Reported:
    """A file that tells how far it has been read."""

    def __init__(self, file: BinaryIO, size: int, report: Report) -> None:
        self._file, self._size, self._report = file, size, report

    def read(self, count: int) -> bytes:
        data = self._file.read(count)
        self._report(self._file.tell() / max(self._size, 1))
        return data


def take(source: Path, library: Library, report: Report) -> Image:
    """Put the image of an exported file into the library, every byte checked. Raises PxebootError.

    When it fails, the library is as it was. Nothing in the file chooses where something is written.
    """
    with library.draft() as draft, _opened(source) as archive:
        try:
            manifest = _unpack(archive, draft, source, report)
        except tarfile.TarError as error:
            raise _damaged(source, str(error)) from error
        return library.put(draft, manifest)


def _unpack(archive: tarfile.TarFile, draft: Draft, source: Path, report: Report) -> Manifest:
    manifest = Manifest.decode(_small(archive, MANIFEST, source), f"{source}: {MANIFEST}")
    found = archive.next()
    if found is not None and found.name == signature.FILE_NAME:
        _take_signature(_contents(archive, found), manifest, draft, source)
        found = archive.next()
    for artefact, name in _FILES.items():
        if found is None or found.name != name or not found.isfile():
            raise _damaged(source, f"{name} is missing")
        _copy(archive, found, getattr(manifest.artefacts, artefact), draft.entry / name, source, report)
        found = archive.next()
    return manifest


def _opened(source: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(source, "r:")
    except (OSError, tarfile.TarError) as error:
        raise PxebootError(
            f"{source} cannot be read as an exported image: {error}",
            "`pxeboot image export` writes such files",
        ) from error


def _small(archive: tarfile.TarFile, name: str, source: Path) -> bytes:
    member = archive.next()
    if member is None or member.name != name or not member.isfile() or member.size > _SMALL:
        raise _damaged(source, f"it does not begin with {name}")
    return _contents(archive, member)


def _contents(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    return file.read(_SMALL) if file is not None else b""


def _take_signature(data: bytes, manifest: Manifest, draft: Draft, source: Path) -> None:
    path = draft.entry / signature.FILE_NAME
    path.write_bytes(data)
    held = Signature.read(path)
    if held is None or not held.holds(manifest):
        raise _damaged(source, "its signature is not of this image")


def _copy(
    archive: tarfile.TarFile,
    member: tarfile.TarInfo,
    wanted: Artefact,
    target: Path,
    source: Path,
    report: Report,
) -> None:
    file = archive.extractfile(member)
    assert file is not None
    count = hashlib.sha256()
    with target.open("wb") as copy:
        while data := file.read(_PIECE):
            count.update(data)
            copy.write(data)
            report(copy.tell() / max(member.size, 1))
    if count.hexdigest() != wanted.sha256:
        raise _damaged(source, f"{member.name} does not have the digest {wanted.sha256[:12]}")


def _damaged(source: Path, what: str) -> PxebootError:
    return PxebootError(f"{source} is damaged: {what}", "export the image again, or copy the file again")


def verify(image: Image, report: Report) -> list[str]:
    """Read every byte of an entry; what is wrong with it, in sentences.

    Raises PxebootError where its signature's file is damaged.
    """
    faults = []
    for artefact, name in _FILES.items():
        wanted: Artefact = getattr(image.manifest.artefacts, artefact)
        found = _digest(image.path / name, report)
        if found is None:
            faults.append(f"{name} is missing")
        elif found != wanted.sha256:
            faults.append(f"{name} has the digest {found[:12]}, not {wanted.sha256[:12]}")
    held = image.signature
    if held is not None and not held.holds(image.manifest):
        faults.append("its signature is not of this image")
    return faults


def _digest(path: Path, report: Report) -> str | None:
    if not path.is_file():
        return None
    count, size = hashlib.sha256(), max(path.stat().st_size, 1)
    with path.open("rb") as file:
        while data := file.read(_PIECE):
            count.update(data)
            report(file.tell() / size)
    return count.hexdigest()
