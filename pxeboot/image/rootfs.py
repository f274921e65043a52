"""The tree of files a node runs from: Debian by mmdebstrap, then what the recipe adds and drops."""

import fnmatch
import os
import re
import shlex
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from pxeboot.errors import PxebootError
from pxeboot.image.command import CommandFailed, run
from pxeboot.image.recipe import Recipe

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
    for path in (tree, *_walk(tree)):
        if path.lstat().st_mtime >= built_since:
            os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)


def remove(tree: Path, patterns: Iterable[str], keep_directories: bool = False) -> None:
    """Delete what matches, never following a link: the tree is full of absolute ones."""
    wanted = re.compile("|".join(fnmatch.translate(pattern) for pattern in patterns))
    for path in _walk(tree):
        if not wanted.match(f"/{path.relative_to(tree)}"):
            continue
        if not stat.S_ISDIR(path.lstat().st_mode):
            path.unlink()
        elif not keep_directories:
            shutil.rmtree(path)


def _walk(folder: Path) -> Iterator[Path]:
    """Everything below a folder, a folder before its contents, which may be deleted meanwhile."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        path = Path(entry.path)
        yield path
        if entry.is_dir(follow_symlinks=False) and path.is_dir():
            yield from _walk(path)


async def packages(tree: Path) -> tuple[tuple[str, str], ...]:
    """Name and version of every installed package, sorted; to be asked before anything is dropped."""
    lines = await run("dpkg-query", f"--admindir={tree}/var/lib/dpkg", "-W", "-f", "${Package} ${Version}\\n")
    return tuple(sorted((name, version) for name, version in map(str.split, lines)))


def unpacked_bytes(tree: Path) -> int:
    """Sum of the sizes of the regular files, each counted once however many names it has."""
    status = (path.lstat() for path in _walk(tree))
    sizes = {entry.st_ino: entry.st_size for entry in status if stat.S_ISREG(entry.st_mode)}
    return sum(sizes.values())
