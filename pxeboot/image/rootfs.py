"""The tree of files a node runs from: Debian by mmdebstrap, then what the recipe adds and drops."""

import os
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pxeboot.errors import PxebootError
from pxeboot.image.command import CommandFailed, run
from pxeboot.image.manifest import Package
from pxeboot.image.recipe import Recipe
from pxeboot.image.tree import remove, walk

EPOCH = 1735689600
"""2025-01-01, in Unix seconds: the time of all that is made while building. A date of its own would give two
equal builds two digests; files that came in packages keep the time they have there."""

_HOOKS = "/usr/share/mmdebstrap/hooks/merged-usr"

_LEFTOVERS = (
    "/etc/hostname", "/etc/resolv.conf", "/etc/.pwd.lock",
    "/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-", "/etc/subuid-", "/etc/subgid-",
    "/run/*", "/tmp/*", "/var/tmp/*", "/var/backups/*",  # noqa: S108  of the image, not ours
    "/var/cache/apt/*", "/var/cache/debconf/*-old", "/var/cache/ldconfig/*", "/var/lib/apt/lists/*",
    "/var/lib/dbus/machine-id", "/var/lib/dpkg/*-old", "/var/lib/systemd/random-seed",
)  # fmt: skip
"""What a build leaves behind that is of the building machine, of this very moment, or of no use on a node."""

_STEPS = (
    ("I: running apt-get update", 0.05),
    ("I: downloading packages", 0.15),
    ("I: extracting archives", 0.25),
    ("I: installing essential packages", 0.35),
    ("I: installing remaining packages", 0.5),
    ("I: running --customize-hook", 0.9),
    ("I: cleaning package lists", 0.95),
)
"""What mmdebstrap says, and the share of its time that has passed then, measured on the `web` image."""

_NO_SUCH_PACKAGE = re.compile(
    r"E: (?:Unable to locate package|Package|Couldn't find any package by \w+) '?([^\s']+)"
)


def arguments(recipe: Recipe, sources: Mapping[str, Path], target: Path) -> list[str]:
    """The command. Source: mmdebstrap(1). `sources` has the local file for each path of `[files]`.

    `usr-is-merged` spares the image `usrmerge`, and with it Perl.
    """
    hooks = [
        *(_adding(path, sources[path], file.mode) for path, file in recipe.files.items()),
        *(f'chroot "$1" sh -euc {shlex.quote(command)}' for command in recipe.commands),
    ]
    return [
        "mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory",
        f"--hook-dir={_HOOKS}", '--aptopt=Acquire::Languages "none"',
        f"--include={','.join(('usr-is-merged', *recipe.packages))}",
        *(f"--customize-hook={hook}" for hook in hooks),
        recipe.suite, str(target),
    ]  # fmt: skip


def _adding(path: str, source: Path, mode: int) -> str:
    """A hook that copies a file in. The path is followed inside: a link there cannot lead out of the tree."""
    script = f'mkdir -p "$(dirname "$1")"; cat >"$1"; chmod {mode:o} "$1"'
    return f'chroot "$1" sh -euc {shlex.quote(script)} sh {shlex.quote(path)} <{shlex.quote(str(source))}'


async def make(
    recipe: Recipe,
    sources: Mapping[str, Path],
    target: Path,
    scratch: Path,
    report: Callable[[float | None], None],
) -> None:
    """Install the recipe's packages, files and commands into the new folder `target`.

    Temporary files go to `scratch`; `report` gets the share that is done. Raises PxebootError.
    """

    def on_line(line: str) -> None:
        for start, done in _STEPS:
            if line.startswith(start):
                report(done)

    environment = {"SOURCE_DATE_EPOCH": str(EPOCH), "TMPDIR": str(scratch)}
    try:
        await run(*arguments(recipe, sources, target), environment=environment, on_line=on_line)
    except CommandFailed as error:
        raise _explain(error, recipe) from None


def _explain(error: CommandFailed, recipe: Recipe) -> PxebootError:
    for found in filter(None, map(_NO_SUCH_PACKAGE.match, error.lines)):
        return PxebootError(
            f"recipe {recipe.name}: packages: {recipe.suite} has no package {found[1]!r}",
            "correct the name; `apt-cache search WORD` finds packages",
        )
    return error


def finish(tree: Path, drop: Iterable[str], built_since: float) -> None:
    """Take out what the recipe drops and what building left, and give what is left its lasting times.

    `built_since`: when building began, Unix seconds; what is newer was made by it and gets EPOCH.
    """
    remove(tree, [*_LEFTOVERS, *drop])
    remove(tree, ["/var/log/*"], keep_directories=True)  # services expect their own folder there
    (tree / "etc/machine-id").write_bytes(b"")  # there but empty: systemd makes one at each boot, quietly
    for path in (tree, *walk(tree)):
        if path.lstat().st_mtime >= built_since:
            os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)


@dataclass(frozen=True)
class Installed:
    """A package of the tree, as dpkg knows it."""

    name: str
    version: str
    files: tuple[str, ...]
    """Paths below the tree, folders and links among them."""

    def weighed(self, sizes: Mapping[str, int]) -> Package:
        """With the size of what is left of it; `sizes` has the bytes of every file of the finished tree."""
        return Package(
            name=self.name, version=self.version, size=sum(sizes.get(path, 0) for path in self.files)
        )


async def installed(tree: Path) -> list[Installed]:
    """Every installed package, by name; to be asked before anything is taken out."""
    lines = await run(
        "dpkg-query",
        f"--admindir={tree}/var/lib/dpkg",
        "-W",
        "-f",
        "${Package} ${Version} ${Architecture}\\n",
    )
    info = tree / "var/lib/dpkg/info"
    found = []
    for name, version, architecture in sorted(map(str.split, lines)):
        lists = (info / f"{name}.list", info / f"{name}:{architecture}.list")
        paths = [line for path in lists if path.is_file() for line in path.read_text().splitlines()]
        found.append(Installed(name, version, tuple(_merged(path) for path in paths)))
    return found


def _merged(path: str) -> str:
    """A path of a package, where it lies in a tree with merged /usr, without the first slash."""
    first = path.split("/")[1]
    return f"usr{path}" if first in ("bin", "sbin") or first.startswith("lib") else path[1:]
