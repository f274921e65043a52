"""The package stage of a build: what a suite's packages make, kept for the next build with the same ones."""

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pxeboot.errors import PxebootError
from pxeboot.image import distribution
from pxeboot.image.apt import Apt, Source, for_suite, host_sources
from pxeboot.image.command import CommandFailed, run
from pxeboot.image.recipe import Recipe
from pxeboot.image.tree import EPOCH, settle_times

Report = Callable[[float | None], None]

KEPT = 4
"""So many package stages stay in the cache, each of 100 MB or so; the ones used last."""

_HOOKS = "/usr/share/mmdebstrap/hooks/merged-usr"
_FORMAT = 1
"""Of the stage: raise it when what is made here changes, or old ones would be taken for new ones."""
_ALWAYS = ("apt", "usr-is-merged", "?essential", "?priority(required)")
"""What mmdebstrap's variant `minbase` installs, as patterns of apt: apt-patterns(7). `usr-is-merged` spares
the image `usrmerge`, and with it Perl."""

_STEPS = (
    ("I: running apt-get update", 0.05),
    ("I: downloading packages", 0.15),
    ("I: extracting archives", 0.3),
    ("I: installing essential packages", 0.45),
    ("I: installing remaining packages", 0.6),
    ("I: cleaning package lists", 0.9),
)
"""What mmdebstrap says, and the share of its time that has passed then, measured on the `web` image."""

_NO_SUCH_PACKAGE = re.compile(
    r"E: (?:Unable to locate package|Package|Couldn't find any package by \w+) '?([^\s']+)"
)
_INSTALLS = re.compile(r"Inst (\S+) \((\S+) .*\[(\w+)\]\)")


@dataclass(frozen=True)
class Plan:
    """What apt would install, and from where."""

    suite: str
    packages: tuple[str, ...]
    """The recipe's."""
    sources: tuple[Source, ...]
    versions: tuple[str, ...]
    """`name=version architecture` of every package, sorted."""

    @property
    def key(self) -> str:
        """The name of the stage in the cache: another set of versions has another one."""
        parts = [_FORMAT, EPOCH, self.suite, sorted(self.packages), self.versions, self._entries]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @property
    def _entries(self) -> str:
        return "\n".join(source.stanza("deb") for source in self.sources)

    def arguments(self, entries: Path, target: Path) -> list[str]:
        """The command; `entries` is the file for the sources. Source: mmdebstrap(1)."""
        return [
            "mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory",
            f"--hook-dir={_HOOKS}", '--aptopt=Acquire::Languages "none"',
            f"--include={','.join(('usr-is-merged', *self.packages))}",
            self.suite, str(target), str(entries),
        ]  # fmt: skip


async def open_apt(recipe: Recipe, cache: Path) -> tuple[Apt, list[Source]]:
    """An apt with fresh lists of the recipe's suite, and its sources. Raises PxebootError."""
    sources = distribution.sources(
        recipe.suite, recipe.mirror, recipe.keyring, for_suite(host_sources(), recipe.suite)
    )
    if not sources:
        raise PxebootError(
            f"suite: this machine's apt has no source for {recipe.suite!r}",
            f"add {recipe.suite} to /etc/apt/sources.list.d, or name a mirror in the recipe",
        )
    _refuse_without_keys(sources, recipe)
    entries = "".join(source.stanza("deb") for source in sources)
    folder = f"{recipe.suite}-{hashlib.sha256(entries.encode()).hexdigest()[:12]}"
    apt = Apt(cache / "apt" / folder, sources, "deb")
    await apt.update()
    return apt, sources


def _refuse_without_keys(sources: Sequence[Source], recipe: Recipe) -> None:
    wanted = distribution.of_suite(recipe.suite)
    for path in (value for source in sources for key, value in source.options if key == "Signed-By"):
        if path == wanted.keyring and not Path(path).exists():
            raise PxebootError(
                f"suite: the keys of {recipe.suite} are not there: {path}",
                f"apt-get install {wanted.keyring_package}",
            )


async def plan(recipe: Recipe, apt: Apt, sources: Sequence[Source]) -> Plan:
    """Ask apt what it would install, in a second. Raises PxebootError that names a package there is not."""
    try:
        lines = await apt.simulate(*_ALWAYS, *recipe.packages)
    except CommandFailed as error:
        raise explain(error, recipe) from None
    found = sorted(f"{m[1]}={m[2]} {m[3]}" for m in map(_INSTALLS.match, lines) if m)
    return Plan(recipe.suite, recipe.packages, tuple(sources), tuple(found))


def explain(error: CommandFailed, recipe: Recipe) -> PxebootError:
    """What the operator can put right in a failure of apt."""
    for found in filter(None, map(_NO_SUCH_PACKAGE.match, error.lines)):
        return PxebootError(
            f"recipe {recipe.name}: packages: {recipe.suite} has no package {found[1]!r}",
            "correct the name; `apt-cache search WORD` finds packages",
        )
    return error


async def install(wanted: Plan, tree: Path, cache: Path, scratch: Path, report: Report) -> None:
    """Make the new folder `tree` of the packages, from the cache where it has them. Raises PxebootError."""
    kept = cache / "packages" / f"{wanted.key}.tar.zst"
    if _used_again(kept):
        await run("mkdir", tree)
        await _tar(tree, "-x", "-f", str(kept))
        return
    began = time.time() - _CLOCK_GRAIN_SECONDS
    await _bootstrap(wanted, tree, scratch, report)
    settle_times(tree, began)
    await _keep(tree, kept)
    report(1.0)


def _used_again(kept: Path) -> bool:
    """Whether it is there; its time says when it was used last."""
    if kept.exists():
        os.utime(kept)
    return kept.exists()


_CLOCK_GRAIN_SECONDS = 1.0
"""File times come from a coarser clock than ours and may lie a little before it."""


async def _bootstrap(wanted: Plan, tree: Path, scratch: Path, report: Report) -> None:
    def on_line(line: str) -> None:
        for start, done in _STEPS:
            if line.startswith(start):
                report(done)

    entries, temporary = scratch / "suite.sources", scratch / "tmp"
    entries.write_text("\n".join(source.stanza("deb") for source in wanted.sources))
    temporary.mkdir()
    environment = {"SOURCE_DATE_EPOCH": str(EPOCH), "TMPDIR": str(temporary)}
    await run(*wanted.arguments(entries, tree), environment=environment, on_line=on_line)


async def _keep(tree: Path, kept: Path) -> None:
    kept.parent.mkdir(parents=True, exist_ok=True)
    fresh = kept.with_suffix(".new")
    try:
        await _tar(tree, "-c", "-f", str(fresh), "--sort=name", ".")
        os.sync()  # or a crash could leave a stage of nothing
        fresh.rename(kept)
    finally:
        fresh.unlink(missing_ok=True)
    for old in sorted(kept.parent.glob("*.tar.zst"), key=lambda path: path.stat().st_mtime)[:-KEPT]:
        old.unlink()


async def _tar(tree: Path, *arguments: str) -> None:
    command = (
        "tar",
        "--numeric-owner",
        "--xattrs",
        "--xattrs-include=*",
        "--format=posix",
        "-I",
        "zstd -1 -T0",
    )
    await run(*command, "-C", tree, *arguments)
