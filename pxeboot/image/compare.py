"""What is different between two images: their manifests, and every file of their roots."""

import filecmp
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pxeboot.image.command import run
from pxeboot.image.library import Image
from pxeboot.image.manifest import Manifest, Package
from pxeboot.image.tree import walk

Kind = Literal["added", "removed", "changed"]


@dataclass(frozen=True)
class Change:
    """One line of a comparison."""

    kind: Kind
    name: str
    before: str = ""
    after: str = ""
    growth: int = 0
    """Bytes."""


def facts(before: Manifest, after: Manifest) -> list[Change]:
    """Everything of the manifests but the packages."""
    old, new = _facts(before), _facts(after)
    return [
        Change("changed", name, old.get(name, ""), new.get(name, ""))
        for name in dict.fromkeys([*old, *new])
        if old.get(name) != new.get(name)
    ]


def _facts(made: Manifest) -> dict[str, str]:
    plain = made.model_dump(mode="json", exclude={"packages", "artefacts", "stripped", "format"})
    sizes = {
        f"{name} size": made.artefacts.model_dump()[name]["size"] for name in ("root", "kernel", "initrd")
    }
    digests = {
        name: made.artefacts.model_dump()[name]["sha256"][:12] for name in ("root", "kernel", "initrd")
    }
    stripped = {"strip": ", ".join(rule.rule for rule in made.stripped)}
    return {name: str(value) for name, value in {**plain, **digests, **sizes, **stripped}.items()}


def packages(before: Manifest, after: Manifest) -> list[Change]:
    """Packages added, removed, and changed in version or in size, by name."""
    old = {package.name: package for package in before.packages}
    new = {package.name: package for package in after.packages}
    return list(_packages(old, new))


def _packages(old: Mapping[str, Package], new: Mapping[str, Package]) -> Iterator[Change]:
    for name in sorted(old.keys() | new.keys()):
        was, now = old.get(name), new.get(name)
        if was is None and now is not None:
            yield Change("added", name, "", now.version, now.size)
        elif now is None and was is not None:
            yield Change("removed", name, was.version, "", -was.size)
        elif was is not None and now is not None and was != now:
            yield Change("changed", name, was.version, now.version, now.size - was.size)


async def files(before: Image, after: Image, scratch: Path) -> list[Change]:
    """Files added, removed and changed in contents, kind, mode or owner.

    Both roots are unpacked below `scratch`. Needs root. Raises PxebootError.
    """
    trees = []
    for name, image in (("before", before), ("after", after)):
        await run("unsquashfs", "-q", "-n", "-d", scratch / name, image.root)
        trees.append(scratch / name)
    return list(_files(trees[0], trees[1]))


def _files(old: Path, new: Path) -> Iterator[Change]:
    were, are = _names(old), _names(new)
    for name in sorted(were | are):
        was, now = old / name, new / name
        if name not in were:
            yield Change("added", f"/{name}", growth=_size(now))
        elif name not in are:
            yield Change("removed", f"/{name}", growth=-_size(was))
        elif (what := ", ".join(_differences(was, now))) != "":
            yield Change("changed", f"/{name}", after=what, growth=_size(now) - _size(was))


def _names(tree: Path) -> set[str]:
    return {str(path.relative_to(tree)) for path in walk(tree)}


def _size(path: Path) -> int:
    status = path.lstat()
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def _differences(was: Path, now: Path) -> Iterable[str]:
    """In words: what of one file is not as it was. Times are not looked at."""
    old, new = was.lstat(), now.lstat()
    if stat.S_IFMT(old.st_mode) != stat.S_IFMT(new.st_mode):
        yield "kind"
    elif stat.S_ISLNK(old.st_mode) and was.readlink() != now.readlink():
        yield f"link to {now.readlink()}"
    elif stat.S_ISREG(old.st_mode) and not filecmp.cmp(was, now, shallow=False):
        yield "contents"
    if stat.S_IMODE(old.st_mode) != stat.S_IMODE(new.st_mode):
        yield f"mode {stat.S_IMODE(new.st_mode):o}"
    if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
        yield f"owner {new.st_uid}:{new.st_gid}"
