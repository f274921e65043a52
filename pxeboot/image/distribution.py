"""Which distribution a suite is of, and where its packages come from when a recipe names no mirror. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from pxeboot.image.apt import Source, read_one_line

UBUNTU_SUITES = ("focal", "jammy", "noble", "oracular", "plucky", "questing", "resolute")
"""Code names since 20.04. https://releases.ubuntu.com"""


@dataclass(frozen=True)
class Distribution:
    """What differs between Debian and Ubuntu here."""

    kernel: str
    """The kernel package of a recipe that names none."""
    components: str
    """Parts of a mirror that is given as an address alone."""
    keyring: str
    """The file that its package of archive keys has, on Debian too."""
    keyring_package: str


DEBIAN = Distribution(
    "linux-image-amd64", "main", "/usr/share/keyrings/debian-archive-keyring.gpg", "debian-archive-keyring"
)
UBUNTU = Distribution(
    "linux-image-virtual",
    "main universe",
    "/usr/share/keyrings/ubuntu-archive-keyring.gpg",
    "ubuntu-keyring",
)


def of_suite(suite: str) -> Distribution:
    """The distribution that has a suite; what is not known as Ubuntu's is taken for Debian's."""
    return UBUNTU if suite in UBUNTU_SUITES else DEBIAN


def sources(suite: str, mirror: Sequence[str], keyring: str | None, host: Sequence[Source]) -> list[Source]:
    """Where packages come from: the recipe's mirror, else the host's own sources, else the archive of Ubuntu.

    An entry of `mirror` is an address, or a whole line of sources.list(5). `keyring` checks them all.
    """
    distribution = of_suite(suite)
    if mirror:
        lines = [line if line.startswith("deb ") else _lines(line, suite, distribution) for line in mirror]
    elif host or distribution is DEBIAN:
        return list(host)
    else:
        lines = [_UBUNTU_LINES.format(suite=suite, components=distribution.components)]
    signed = (("Signed-By", keyring or distribution.keyring),)
    found = [source for line in lines for source in read_one_line(line)]
    return [
        source
        if _is_signed(source)
        else Source(source.uris, source.suites, source.components, source.options + signed)
        for source in found
    ]


def _lines(address: str, suite: str, distribution: Distribution) -> str:
    return f"deb {address} {suite} {distribution.components}"


_UBUNTU_LINES = """\
deb http://archive.ubuntu.com/ubuntu {suite} {components}
deb http://archive.ubuntu.com/ubuntu {suite}-updates {components}
deb http://security.ubuntu.com/ubuntu {suite}-security {components}
"""


def _is_signed(source: Source) -> bool:
    return any(name.lower() in ("signed-by", "trusted") for name, _ in source.options)
