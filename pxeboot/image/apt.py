"""Debian packages through apt, with lists and caches of our own: the host's apt is read, never touched."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pxeboot.errors import PxebootError
from pxeboot.image.command import CommandFailed, run

Kind = Literal["deb", "deb-src"]

_FOLDER = Path("/etc/apt")
_ONE_LINE = re.compile(
    r"(?P<type>deb|deb-src)\s+(?:\[(?P<options>[^]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)(?P<rest>.*)"
)
_FIELDS = {"arch": "Architectures", "lang": "Languages", "target": "Targets"}
"""Options of the one-line form that are spelled otherwise in the other one: sources.list(5)."""


@dataclass(frozen=True)
class Source:
    """One entry of the host's sources of binary packages."""

    uris: str
    suites: tuple[str, ...]
    components: str
    options: tuple[tuple[str, str], ...] = ()
    """Every other field, as it stands there."""

    def stanza(self, kind: Kind) -> str:
        """The entry in the form of `.sources` files, for binary or for source packages."""
        fields = [("Types", kind), ("URIs", self.uris), ("Suites", " ".join(self.suites))]
        if self.components:  # a flat repository has none
            fields.append(("Components", self.components))
        return "".join(f"{key}: {value}\n" for key, value in [*fields, *self.options])


def read_one_line(text: str) -> Iterator[Source]:
    """Entries of a `sources.list`. Source: sources.list(5), one-line style."""
    for line in text.splitlines():
        entry = _ONE_LINE.match(line.partition("#")[0].strip())
        if entry and entry["type"] == "deb":
            options = dict(item.split("=", 1) for item in (entry["options"] or "").split())
            yield Source(
                entry["uri"],
                (entry["suite"],),
                " ".join(entry["rest"].split()),
                tuple((_FIELDS.get(key, key), value.replace(",", " ")) for key, value in options.items()),
            )


def read_stanzas(text: str) -> Iterator[Source]:
    """Entries of a `.sources` file. Source: sources.list(5), deb822 style."""
    plain = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for stanza in re.split(r"\n\s*\n", plain):
        fields = dict(re.findall(r"^([A-Za-z-]+):[ \t]*(.*(?:\n[ \t].*)*)", stanza, re.MULTILINE))
        named = {key.lower(): value.strip() for key, value in fields.items()}
        if "deb" in named.get("types", "").split() and named.get("enabled", "yes").lower() not in (
            "no",
            "false",
        ):
            known = {"types", "uris", "suites", "components", "enabled"}
            yield Source(
                named["uris"],
                tuple(named["suites"].split()),
                named.get("components", ""),
                tuple((key, value.strip()) for key, value in fields.items() if key.lower() not in known),
            )


def for_suite(sources: Iterable[Source], suite: str) -> list[Source]:
    """What belongs to one release: the suite itself and its `-updates`, `-security` and the like."""
    return [
        Source(source.uris, suites, source.components, source.options)
        for source in sources
        if (suites := tuple(s for s in source.suites if s.partition("/")[0].split("-")[0] == suite))
    ]


def host_sources(folder: Path = _FOLDER) -> list[Source]:
    """Every source of binary packages that the host's apt has, in its own order."""
    parts = folder / "sources.list.d"
    lists = [folder / "sources.list", *sorted(parts.glob("*.list"))]
    found = [source for path in lists if path.is_file() for source in read_one_line(path.read_text())]
    return [*found, *(s for path in sorted(parts.glob("*.sources")) for s in read_stanzas(path.read_text()))]


def _first(folder: Path, pattern: str) -> Path:
    return next(folder.glob(pattern))


class Apt:
    """One private apt: its own lists, below `folder`, of binary or of source packages."""

    def __init__(self, folder: Path, sources: Iterable[Source], kind: Kind) -> None:
        self._folder = folder
        self._entries = "\n".join(source.stanza(kind) for source in sources)

    async def update(self) -> None:
        """Fetch the package lists. Raises PxebootError."""
        for name in ("lists/partial", "cache/archives/partial", "sources"):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        (self._folder / "sources/host.sources").write_text(self._entries)
        await run("apt-get", *self._options(), "--error-on=any", "-q", "update")

    async def simulate(self, *packages: str) -> list[str]:
        """What apt says it would do to install these, or patterns of them. Raises CommandFailed."""
        return await run(
            "apt-get", *self._options(), "-o", "APT::Install-Recommends=false", "-o", "Debug::NoLocking=true",
            "-qq", "--simulate", "install", *packages,
        )  # fmt: skip

    async def describe(self, package: str) -> Mapping[str, str]:
        """The control fields of the package's newest version. Raises PxebootError when there is none."""
        try:
            lines = await run("apt-cache", *self._options(), "-q", "show", "--no-all-versions", package)
        except CommandFailed:
            raise PxebootError(
                f"kernel: this machine's apt sources have no package {package!r}", "correct the name"
            ) from None
        return dict(line.split(": ", 1) for line in lines if re.match(r"[A-Z][A-Za-z-]*: ", line))

    async def download(self, package: str, version: str, folder: Path) -> Path:
        """Fetch one binary package, checked against the signed lists. Raises PxebootError."""
        await run("apt-get", *self._options(), "-q", "download", f"{package}={version}", directory=folder)
        return _first(folder, f"{package}_*.deb")

    async def download_source(self, package: str, folder: Path) -> Path:
        """Fetch and unpack one source package; return its folder. Raises PxebootError."""
        await run("apt-get", *self._options(), "-q", "source", package, directory=folder)
        return _first(folder, f"{package}-[0-9]*/")

    def _options(self) -> Iterator[str]:
        settings = {
            "Dir::State": f"{self._folder}/",
            "Dir::State::lists": f"{self._folder}/lists",
            "Dir::State::status": "/dev/null",
            "Dir::Cache": f"{self._folder}/cache",
            "Dir::Etc::sourcelist": "/dev/null",
            "Dir::Etc::sourceparts": f"{self._folder}/sources",
            "APT::Sandbox::User": "root",  # `_apt` cannot write to a folder that is only ours
            "Acquire::Languages": "none",
        }
        for key, value in settings.items():
            yield from ("-o", f"{key}={value}")
