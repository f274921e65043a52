"""The image library: entries that never change, named by their digest, and tags that point to them."""

import fcntl
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import BaseModel, Field, ValidationError

from pxeboot.errors import PxebootError
from pxeboot.image import full_disk, retention, signature
from pxeboot.image.manifest import DIGEST_PATTERN, Manifest
from pxeboot.image.recipe import image_name
from pxeboot.image.retention import TagStep
from pxeboot.image.signature import Signature

MANIFEST = "manifest.json"
_DRAFT_PREFIX = ".draft-"
_PREFIX = re.compile(r"[0-9a-f]{6,64}")


@dataclass(frozen=True)
class Image:
    """One entry."""

    digest: str
    manifest: Manifest
    path: Path

    @property
    def root(self) -> Path:
        """The SquashFS file."""
        return self.path / "root.squashfs"

    @property
    def kernel(self) -> Path:
        """The kernel."""
        return self.path / "kernel"

    @property
    def initrd(self) -> Path:
        """The initial RAM file system."""
        return self.path / "initrd"

    @property
    def signature(self) -> Signature | None:
        """The operator's signature, if it has one. Raises PxebootError when that is damaged."""
        return Signature.read(self.path / signature.FILE_NAME)


class TagFile(BaseModel, frozen=True, extra="forbid"):
    """The contents of `tags/<tag>.json`: newest step first; that is where the tag points."""

    history: tuple[TagStep, ...] = Field(min_length=1)


@dataclass(frozen=True)
class Draft:
    """A folder in which an entry is being made; it is gone when making it ends, in whichever way."""

    path: Path

    @classmethod
    def below(cls, folder: Path) -> Self:
        """A new one in `folder`."""
        draft = cls(Path(tempfile.mkdtemp(prefix=_DRAFT_PREFIX, dir=folder)))
        draft.entry.mkdir()
        draft.scratch.mkdir()
        return draft

    @property
    def entry(self) -> Path:
        """Put `root.squashfs`, `kernel` and `initrd` here."""
        return self.path / "entry"

    @property
    def scratch(self) -> Path:
        """For whatever is needed on the way."""
        return self.path / "scratch"


class Library:
    """`STATE_DIR/images`. Reading is cheap enough to be done for every boot.

    With `trusted`, public keys in hexadecimal, an image that none of them has signed is refused: no tag is
    moved to it, and no node is told to boot it.
    """

    def __init__(self, path: Path, trusted: Iterable[str] = ()) -> None:
        self._path = path
        self._trusted = frozenset(trusted)
        self._images: dict[str, Image] = {}
        self._checked: set[str] = set()
        self._tags: dict[str, tuple[Path, int, TagFile]] = {}

    @contextmanager
    def draft(self) -> Iterator[Draft]:
        """A draft on the library's own file system.

        Raises PxebootError when another process is building, and when the disk gets full.
        """
        with self.alone(), full_disk.told(self._path):
            draft = Draft.below(self._path)
            try:
                yield draft
            finally:
                shutil.rmtree(draft.path)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """No other process builds or removes meanwhile; what a killed one left is removed first.

        It takes no room, so that a full disk can be emptied. Raises PxebootError when another process builds.
        """
        self._path.mkdir(parents=True, exist_ok=True)
        with _only_builder(self._path / ".lock"):
            self._sweep()
            yield

    def put(self, draft: Draft, manifest: Manifest) -> Image:
        """Make the draft an entry, all of it on disk, and return it; an equal one that is there stays."""
        target = self._path / manifest.digest
        if not target.is_dir():
            (draft.entry / MANIFEST).write_bytes(manifest.encode())
            for path in (*draft.entry.iterdir(), draft.entry):
                _sync(path)
            draft.entry.rename(target)
            _sync(self._path)
        return self.get(manifest.digest)

    def get(self, digest: str) -> Image:
        """The entry with that digest. Raises PxebootError."""
        image = self._images.get(digest)
        if image is None:
            image = self._images[digest] = self._read(digest)
        return image

    def trust(self, keys: Iterable[str]) -> None:
        """Ask for a signature by one of these public keys from now on; by none of them: ask for none."""
        self._trusted, self._checked = frozenset(keys), set()

    def bootable(self, name: str) -> Image:
        """As `resolve`, and signed by a trusted key where there are any. Raises PxebootError."""
        return self._vouched(self.resolve(name))

    def _vouched(self, image: Image) -> Image:
        if self._trusted and image.digest not in self._checked:
            signature.check(image.manifest, image.signature, self._trusted)
            self._checked.add(image.digest)
        return image

    def sign(self, image: Image, key: Ed25519PrivateKey) -> None:
        """Put the operator's signature beside the manifest; an earlier one goes. Raises PxebootError."""
        with full_disk.told(self._path):
            _replace(image.path / signature.FILE_NAME, Signature.of(image.manifest, key).encode())

    def list(self) -> list[Image]:
        """Every entry, newest first."""
        if not self._path.is_dir():
            return []
        found = [entry for entry in self._path.iterdir() if re.fullmatch(DIGEST_PATTERN, entry.name)]
        found.sort(key=lambda entry: entry.stat().st_mtime, reverse=True)
        return [self.get(entry.name) for entry in found]

    def tag(self, name: str) -> str | None:
        """The digest that a tag points to, if there is such a tag. Raises PxebootError when it is damaged."""
        history = self.history(name)
        return history[0].digest if history else None

    def history(self, name: str) -> tuple[TagStep, ...]:
        """Where a tag has pointed, newest first; nothing when there is no such tag."""
        known = self._tags.get(name)
        try:
            path = known[0] if known is not None else self._tag_path(name)
            changed = path.stat().st_mtime_ns
        except (PxebootError, FileNotFoundError):
            return ()
        if known is None or known[1] != changed:
            known = self._tags[name] = (path, changed, _read_tag(path))
        return known[2].history

    def tags(self) -> dict[str, str]:
        """The digest of every tag, by name."""
        names = sorted(path.stem for path in (self._path / "tags").glob("*.json"))
        return {name: digest for name in names if (digest := self.tag(name))}

    def set_tag(self, name: str, digest: str) -> None:
        """Let a tag point to an entry; where it pointed before is remembered. Raises PxebootError."""
        self._step(name, digest, back=False)

    def rollback(self, name: str) -> Image:
        """Let a tag point to the image it had before the present one, and return that. Raises PxebootError.

        Another rollback goes further back, not forth again.
        """
        if (digest := retention.earlier(self.history(name))) is None:
            raise PxebootError(
                f"tag {name!r} has no earlier image",
                f"`pxeboot image show {name}` shows where it has pointed",
            )
        self._step(name, digest, back=True)
        return self.get(digest)

    def remove(self, digest: str) -> None:
        """Delete an entry; the caller has seen that nobody needs it. Call it inside `alone`."""
        doomed = self._path / f"{_DRAFT_PREFIX}{digest}"  # swept by the next one, should this be cut short
        (self._path / digest).rename(doomed)
        self._images.pop(digest, None)
        shutil.rmtree(doomed)

    def _step(self, name: str, digest: str, *, back: bool) -> None:
        path = self._tag_path(name)
        history = self.history(name)
        if history and history[0].digest == digest:
            return
        step = TagStep(digest=self._vouched(self.get(digest)).digest, since=time.time(), back=back)
        with full_disk.told(self._path):
            path.parent.mkdir(exist_ok=True)
            _replace(path, TagFile(history=(step, *history)).model_dump_json(indent=2).encode() + b"\n")

    def resolve(self, name: str) -> Image:
        """The entry of a tag, a digest, or the beginning of just one digest. Raises PxebootError."""
        if digest := self.tag(name):
            return self.get(digest)
        matching = [image for image in self.list() if image.digest.startswith(name)]
        if _PREFIX.fullmatch(name) and len(matching) == 1:
            return matching[0]
        if _PREFIX.fullmatch(name) and matching:
            raise PxebootError(f"{len(matching)} images begin with {name!r}", "write more of the digest")
        known = ", ".join(self.tags()) or "none yet"
        raise PxebootError(
            f"there is no image {name!r}", f"`pxeboot image build` makes one; tags there are: {known}"
        )

    def _read(self, digest: str) -> Image:
        path = self._path / digest
        try:
            data = (path / MANIFEST).read_bytes()
        except FileNotFoundError:
            raise PxebootError(
                f"image {digest} is not in {self._path}", "`pxeboot image list` shows what is"
            ) from None
        manifest = Manifest.decode(data, str(path / MANIFEST))
        if manifest.digest != digest:
            raise PxebootError(
                f"{path / MANIFEST} does not have the digest {digest}", "build the image again"
            )
        return Image(digest, manifest, path)

    def _tag_path(self, name: str) -> Path:
        try:
            return self._path / "tags" / f"{image_name(name)}.json"
        except ValueError as error:
            raise PxebootError(f"tag: {error}", 'write one like "web"') from None

    def _sweep(self) -> None:
        for left in self._path.glob(f"{_DRAFT_PREFIX}*"):
            shutil.rmtree(left)


@contextmanager
def _only_builder(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PxebootError(
                f"another process is building an image in {path.parent}", "wait until it has ended"
            ) from None
        yield


def _read_tag(path: Path) -> TagFile:
    try:
        return TagFile.model_validate_json(path.read_bytes())
    except ValidationError:
        raise PxebootError(f"{path} is damaged", "delete it, and build or tag the image again") from None


def _replace(path: Path, data: bytes) -> None:
    """Write a file so that a crash leaves either the old or the new one."""
    fresh = path.with_suffix(".new")
    try:
        fresh.write_bytes(data)
        _sync(fresh)
        fresh.replace(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def _sync(path: Path) -> None:
    """Have a file or folder on disk. Source: fsync(2)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
