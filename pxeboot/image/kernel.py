"""Debian's kernel packages, unpacked once, and which of their modules a system needs."""

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import filter as matching
from pathlib import Path, PurePosixPath

from pxeboot.errors import PxebootError
from pxeboot.image.apt import Apt
from pxeboot.image.command import run

_MODULES_APART = re.compile(r"\blinux-modules-\d[^\s,(|]*")
_VERSIONED = re.compile(r"\blinux-image-\d[^\s,(|]*")


@dataclass(frozen=True)
class Kernel:
    """An unpacked kernel package."""

    folder: Path

    @property
    def vmlinuz(self) -> Path:
        """What a boot loader starts."""
        return self.folder / "boot" / f"vmlinuz-{self.release}"

    @property
    def release(self) -> str:
        """As `uname -r` says it."""
        return next((self.folder / "lib/modules").iterdir()).name

    @property
    def modules(self) -> Path:
        """Its modules, with `depmod`'s indexes beside them."""
        return self.folder / "lib/modules" / self.release

    @property
    def modular(self) -> bool:
        """Whether it has modules; our own kernels have none."""
        return (self.modules / "modules.dep").stat().st_size > 0

    async def install_modules(self, paths: Iterable[str], target: Path) -> None:
        """Copy modules, named as in `modules.dep`, below `target`/lib/modules and index them there."""
        folder = target / "lib/modules" / self.release
        for path in (*paths, "modules.order", "modules.builtin", "modules.builtin.modinfo"):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.modules / path, folder / path)
        await run("depmod", "-b", target, self.release)


async def fetch(package: str, apt: Apt, cache: Path, scratch: Path) -> Kernel:
    """The newest kernel behind `package` (a meta package is followed), from `cache` when it is there.

    Raises PxebootError.
    """
    name, version = await _versioned(apt, package)
    folder = cache / "kernels" / f"{name}_{version.replace(':', '%3a')}"
    if not folder.is_dir():
        await _unpack(apt, name, version, scratch, folder)
    return Kernel(folder)


async def _versioned(apt: Apt, package: str) -> tuple[str, str]:
    """Follow a meta package to the one with the kernel in it; its name and version."""
    fields = await apt.describe(package)
    below = _VERSIONED.search(fields.get("Depends", ""))
    return await _versioned(apt, below[0]) if below else (package, fields["Version"])


async def _modules_apart(apt: Apt, name: str) -> list[tuple[str, str]]:
    """Ubuntu has a kernel's modules in packages of their own; their names and versions."""
    depends = (await apt.describe(name)).get("Depends", "")
    return [(found, (await apt.describe(found))["Version"]) for found in _MODULES_APART.findall(depends)]


async def _unpack(apt: Apt, name: str, version: str, scratch: Path, folder: Path) -> None:
    unpacked = scratch / "kernel"
    unpacked.mkdir()
    for part, its_version in ((name, version), *await _modules_apart(apt, name)):
        archive = await apt.download(part, its_version, scratch)
        await run("dpkg-deb", "-x", archive, unpacked)
        archive.unlink()
    if not any(unpacked.glob("boot/vmlinuz-*")):
        raise PxebootError(f"kernel: package {name!r} holds no kernel", 'name one like "linux-image-amd64"')
    await run("depmod", "-b", unpacked, next((unpacked / "lib/modules").iterdir()).name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    os.sync()  # or a crash could leave a cached kernel of empty files
    unpacked.rename(folder)


class ModuleIndex:
    """What `depmod` knows of a kernel's modules: who needs whom.

    Source: modules.dep(5), depmod.d(5) on `softdep`. In names, `-` and `_` are the same.
    """

    def __init__(self, dependencies: str, builtin: str, soft: str, aliases: str) -> None:
        lines = (line.partition(":") for line in dependencies.splitlines() if line)
        self._needs = {path: tuple(needs.split()) for path, _, needs in lines}
        self._paths = {_name(path): path for path in self._needs}
        self._builtin = {_name(path) for path in builtin.split()}
        self._soft = dict(_soft_dependencies(soft))
        self._aliases = dict(_plain_aliases(aliases))

    @classmethod
    def read(cls, kernel: Kernel) -> "ModuleIndex":
        """The index of an unpacked kernel."""
        names = ("modules.dep", "modules.builtin", "modules.softdep", "modules.alias")
        return cls(*((kernel.modules / name).read_text() for name in names))

    def closure(self, patterns: Iterable[str]) -> list[str]:
        """Paths of the modules with these names, and of all that they need, sorted.

        A module that is part of the kernel adds nothing. Raises PxebootError for a name found nowhere.
        """
        found: set[str] = set()
        waiting = [path for pattern in patterns for path in self._matching(pattern)]
        while waiting:
            path = waiting.pop()
            if path not in found:
                found.add(path)
                waiting += [*self._needs[path], *self._wished(_name(path))]
        return sorted(found)

    def _matching(self, pattern: str) -> list[str]:
        names = matching(self._paths, pattern.replace("-", "_"))
        if not names and not matching(self._builtin, pattern.replace("-", "_")):
            raise PxebootError(
                f"modules: the kernel has no module {pattern!r}", "correct the name; `modinfo` knows them"
            )
        return [self._paths[name] for name in names]

    def _wished(self, name: str) -> Iterator[str]:
        """What should be loaded with a module; what is not there is done without, as modprobe does it."""
        for wish in self._soft.get(name, ()):
            target = self._aliases.get(wish, wish)
            if target in self._paths:
                yield self._paths[target]


def _name(path: str) -> str:
    return PurePosixPath(path).name.partition(".ko")[0].replace("-", "_")


def _soft_dependencies(text: str) -> Iterator[tuple[str, list[str]]]:
    for line in text.splitlines():
        words = line.replace("-", "_").split()
        if words[:1] == ["softdep"]:
            yield words[1], [word for word in words[2:] if not word.endswith(":")]


def _plain_aliases(text: str) -> Iterator[tuple[str, str]]:
    """Aliases that name one thing, like `crc32c`; those of hardware are patterns with colons."""
    for line in text.splitlines():
        words = line.replace("-", "_").split()
        if words[:1] == ["alias"] and ":" not in words[1]:
            yield words[1], words[2]
