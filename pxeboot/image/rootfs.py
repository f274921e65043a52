"""The end of making the tree that a node runs from: what building left, and what is left of the packages."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pxeboot.image.command import run
from pxeboot.image.manifest import Package
from pxeboot.image.tree import remove, settle_times

_LEFTOVERS = (
    "/etc/hostname", "/etc/resolv.conf", "/etc/.pwd.lock", "/etc/ssh/ssh_host_*",
    "/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-", "/etc/subuid-", "/etc/subgid-",
    "/run/*", "/tmp/*", "/var/tmp/*", "/var/backups/*",  # noqa: S108  of the image, not ours
    "/var/cache/apt/*", "/var/cache/debconf/*-old", "/var/cache/ldconfig/*", "/var/lib/apt/lists/*",
    "/var/lib/dbus/machine-id", "/var/lib/dpkg/*-old", "/var/lib/systemd/random-seed",
)  # fmt: skip
"""What a build leaves behind that is of the building machine, of this very moment, or of no use on a node."""


def finish(tree: Path, drop: Iterable[str], built_since: float) -> None:
    """Take out what the recipe drops and what building left, and give what is left its lasting times.

    `built_since`: when building began, Unix seconds; what is newer was made by it and gets EPOCH.
    """
    remove(tree, [*_LEFTOVERS, *drop])
    remove(tree, ["/var/log/*"], keep_directories=True)  # services expect their own folder there
    machine_id = tree / "etc/machine-id"
    machine_id.unlink(missing_ok=True)
    machine_id.parent.mkdir(exist_ok=True)
    machine_id.write_bytes(b"")  # there but empty: systemd makes one at each boot, quietly
    settle_times(tree, built_since)


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
    """Every installed package, by name; to be asked before anything is taken out. Nothing without dpkg."""
    if not _has_dpkg(tree):
        return []
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


def _has_dpkg(tree: Path) -> bool:
    return (tree / "var/lib/dpkg/status").is_file()


def _merged(path: str) -> str:
    """A path of a package, where it lies in a tree with merged /usr, without the first slash."""
    first = path.split("/")[1]
    return f"usr{path}" if first in ("bin", "sbin") or first.startswith("lib") else path[1:]
