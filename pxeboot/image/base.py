"""A root file system made elsewhere, as the beginning of an image: a folder, a tar, or an OCI layout.

Nothing in it can be written outside the tree: names are followed as inside a chroot, links and all.
"""

import hashlib
import json
import lzma
import os
import shutil
import stat
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from pxeboot.errors import PxebootError
from pxeboot.image.command import run
from pxeboot.image.tree import follow

Report = Callable[[float | None], None]

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_ZSTD = b"\x28\xb5\x2f\xfd"
_CAPABILITY = "security.capability"
_FOLDERS = (
    "etc",
    "usr",
    "usr/lib",
    "usr/lib/modules",
    "lib/modules",
    "var",
    "proc",
    "sys",
    "dev",
    "run",
    "tmp",
)
"""What building writes into or mounts on: no link of a foreign tree may stand there, but one inside it."""
_MAX_INDEXES = 4
"""How many image indexes may name one another, one inside the other."""


async def unpack(source: Path, tree: Path, scratch: Path, report: Report) -> None:
    """Make `tree` of a folder, a tar (`docker export`) or an OCI image layout. Raises PxebootError."""
    if _is_layout(source):
        await _unpack_layers(source, tree, scratch, report)
    elif _is_folder(source):
        await run("cp", "-a", "-T", source, tree)
    else:
        await _unpack_tar(source, tree, scratch, report)
    _refuse_leading_out(tree)


def _is_layout(source: Path) -> bool:
    return (source / "oci-layout").is_file()


def _is_folder(source: Path) -> bool:
    return source.is_dir()


def _refuse_leading_out(tree: Path) -> None:
    top = os.path.realpath(tree)
    for name in _FOLDERS:
        place = os.path.realpath(tree / name)  # as the builder, who is not inside, would follow it
        if place != top and not place.startswith(f"{top}/"):
            raise PxebootError(f"base: the link /{name} leads out of the tree", "mend it there")
    tree.chmod(0o755)


async def _unpack_tar(source: Path, tree: Path, scratch: Path, report: Report) -> None:
    _apply(await _without_zstd(source, scratch), tree, report, whiteouts=False)


async def _unpack_layers(layout: Path, tree: Path, scratch: Path, report: Report) -> None:
    """Source: OCI image specification 1.1, image-layout.md, manifest.md and layer.md."""
    layers = _manifest(layout, _json(layout / "index.json")).get("layers", [])
    for number, layer in enumerate(layers):
        blob = await _without_zstd(_blob(layout, layer), scratch)
        _apply(blob, tree, lambda share: None, whiteouts=True)
        report((number + 1) / len(layers))


async def _without_zstd(packed: Path, scratch: Path) -> Path:
    """What Python's tarfile can read: it knows gzip, bzip2 and xz itself."""
    if not _begins_with(packed, _ZSTD):
        return packed
    plain = scratch / "base-unpacked.tar"
    await run("zstd", "-q", "-d", "-f", packed, "-o", plain)
    return plain


def _begins_with(path: Path, magic: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(magic)) == magic


def _apply(source: Path, tree: Path, report: Report, *, whiteouts: bool) -> None:
    tree.mkdir(exist_ok=True)
    try:
        with tarfile.open(source, "r:*") as archive:
            _Layer(tree, archive, whiteouts=whiteouts).apply(source.stat().st_size, report)
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise PxebootError(f"base: {source} cannot be read as a tar: {error}", "export it again") from error


def _manifest(layout: Path, index: dict[str, Any]) -> dict[str, Any]:
    """The image for this machine's kind; an index may lead to another one."""
    for _ in range(_MAX_INDEXES):
        entries = [item for item in index.get("manifests", []) if _fits(item)]
        if len(entries) != 1:
            raise PxebootError(
                f"base: {layout} has {len(entries)} images for linux/amd64", "make a layout with just one"
            )
        found = _json(_blob(layout, entries[0]))
        if "layers" in found:
            return found
        index = found
    raise PxebootError(f"base: {layout} has indexes without end", "copy the layout again")


def _fits(entry: dict[str, Any]) -> bool:
    platform = entry.get("platform") or {"os": "linux", "architecture": "amd64"}
    return (platform.get("os"), platform.get("architecture")) == ("linux", "amd64")


def _blob(layout: Path, descriptor: dict[str, Any]) -> Path:
    """The file of a descriptor, its digest checked. Raises PxebootError."""
    kind, _, digest = str(descriptor.get("digest")).partition(":")
    if kind != "sha256" or len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
        raise PxebootError(f"base: {layout} names a blob {kind}:{digest}", "only sha256 is known here")
    path = layout / "blobs/sha256" / digest
    try:
        with path.open("rb") as file:
            good = hashlib.file_digest(file, "sha256").hexdigest() == digest
    except FileNotFoundError:
        raise PxebootError(f"base: {path} is missing", "copy the layout again") from None
    if not good:
        raise PxebootError(f"base: {path} does not have its digest", "copy the layout again")
    return path


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise PxebootError(f"base: {path} cannot be read: {error}", "copy the layout again") from None
    if not isinstance(found, dict):
        raise PxebootError(f"base: {path} is no JSON object", "copy the layout again")
    return found


class _Layer:
    """One tar, applied to a tree."""

    def __init__(self, tree: Path, archive: tarfile.TarFile, *, whiteouts: bool) -> None:
        self._tree = tree
        self._archive = archive
        self._whiteouts = whiteouts
        self._made: set[Path] = set()
        self._folders: list[tuple[Path, tarfile.TarInfo]] = []

    def apply(self, size: int, report: Report) -> None:
        """All of it; times of folders come last, since writing into one changes it."""
        for member in self._archive:
            self._take(member)
            report(min(self._archive.offset / max(size, 1), 1.0))
        for path, member in reversed(self._folders):
            if path.is_dir() and not path.is_symlink():
                os.utime(path, (member.mtime, member.mtime))

    def _take(self, member: tarfile.TarInfo) -> None:
        parts = [part for part in PurePosixPath(member.name).parts if part not in ("/", ".")]
        if ".." in parts:
            raise PxebootError(f"base: {member.name!r} leads out of the tree", "do not use this file")
        if not parts:
            return
        folder = self._folder("/".join(parts[:-1]))
        if self._whiteouts and parts[-1].startswith(_WHITEOUT):
            self._white_out(folder, parts[-1])
        else:
            self._make(member, folder / parts[-1])

    def _folder(self, name: str) -> Path:
        """A folder by its name, links followed as inside; made where it is missing."""
        path = follow(self._tree, name)
        if path is None or (path.exists() and not path.is_dir()):
            raise PxebootError(f"base: /{name} is no folder inside the tree", "do not use this file")
        path.mkdir(parents=True, exist_ok=True)
        return path

    def _white_out(self, folder: Path, name: str) -> None:
        """Source: layer.md, whiteouts: only what lower layers have is hidden."""
        if name == _OPAQUE:
            for path in [path for path in folder.iterdir() if path not in self._made]:
                _delete(path)
        elif (hidden := name.removeprefix(_WHITEOUT)) not in ("", ".", ".."):
            _delete(folder / hidden)

    def _make(self, member: tarfile.TarInfo, path: Path) -> None:
        if not (member.isdir() and path.is_dir() and not path.is_symlink()):
            _delete(path)
        if member.isdir():
            path.mkdir(exist_ok=True)
            self._folders.append((path, member))
        elif member.issym():
            path.symlink_to(member.linkname)
        elif member.islnk():
            self._link(member, path)
        elif member.isreg():
            self._write(member, path)
        elif member.isfifo():
            os.mkfifo(path)
        else:
            return  # devices: the node's kernel makes its own
        self._made.add(path)
        if not member.islnk():
            _dress(member, path)

    def _link(self, member: tarfile.TarInfo, path: Path) -> None:
        folder, _, name = member.linkname.strip("/").rpartition("/")
        target = self._folder(folder) / name
        if name in ("", ".", "..") or not target.is_file() or target.is_symlink():
            raise PxebootError(
                f"base: {member.name!r} is a link to what is not there", "do not use this file"
            )
        os.link(target, path)

    def _write(self, member: tarfile.TarInfo, path: Path) -> None:
        source = self._archive.extractfile(member)
        assert source is not None
        with path.open("xb") as file:
            shutil.copyfileobj(source, file, 1 << 20)


def _dress(member: tarfile.TarInfo, path: Path) -> None:
    """Owner, mode, capabilities, time. A new owner clears set-user-id bits, so the mode comes later."""
    os.chown(path, member.uid, member.gid, follow_symlinks=False)
    if not member.issym():
        path.chmod(stat.S_IMODE(member.mode))
        capability = member.pax_headers.get(f"SCHILY.xattr.{_CAPABILITY}")
        if capability is not None:
            os.setxattr(path, _CAPABILITY, capability.encode("utf-8", "surrogateescape"))
    os.utime(path, (member.mtime, member.mtime), follow_symlinks=False)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
