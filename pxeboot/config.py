"""The site's configuration: one TOML file as frozen, typed models.

Reading the text is `parse`, which is pure; `load` opens the file. What can be judged from the text alone is
judged here: spelling, types, ranges, and what contradicts what. Whether an interface or a port exists is a
question for `preflight`.
"""

import re
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv4Network, ip_address
from itertools import combinations
from pathlib import Path
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, model_validator
from pydantic_core import ErrorDetails

from pxeboot import toml
from pxeboot.balancer import service
from pxeboot.balancer.service import ServiceConfig
from pxeboot.dhcp import custom
from pxeboot.errors import PxebootError
from pxeboot.inventory.overlay import Laid, Vars
from pxeboot.mac import Mac
from pxeboot.words import LABEL, Inside, Name

DEFAULT_PATH = Path("pxeboot.toml")
ANY_MACHINE = "*"

_RATE = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?) ?(kbit|Mbit|Gbit)")
_UNITS = {"kbit": 10**3, "Mbit": 10**6, "Gbit": 10**9}
_MAC_PATTERN = re.compile(r"(?:[0-9a-f]{2}:){1,5}\*|(?:[0-9a-f]{2}:){5}[0-9a-f]{2}")


def machine_pattern(text: str) -> str:
    """Accept a MAC address, its first octets and `*`, a UUID, or `*` alone; return it in lower case."""
    pattern = text.strip().lower().replace("-", ":") if "*" in text else text.strip().lower()
    if pattern == ANY_MACHINE or _MAC_PATTERN.fullmatch(pattern):
        return pattern
    for read in (Mac.parse, UUID):
        try:
            return str(read(text))
        except ValueError:
            continue
    raise ValueError(f'{text!r} is neither a MAC address, nor its first octets like "52:54:00:*", nor a UUID')


class AddressRange(BaseModel, frozen=True):
    """Addresses from `first` to `last`, both included; written `10.77.0.100-10.77.0.199` or one address."""

    first: IPv4Address
    last: IPv4Address

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError."""
        first, _, last = text.partition("-")
        made = cls(first=_address(first), last=_address(last or first))
        if made.last < made.first:
            raise ValueError(f"{text!r} ends before it begins")
        return made

    def __contains__(self, address: IPv4Address) -> bool:
        return self.first <= address <= self.last

    def __len__(self) -> int:
        return int(self.last) - int(self.first) + 1

    def __iter__(self) -> Iterator[IPv4Address]:  # type: ignore[override]
        return (IPv4Address(number) for number in range(int(self.first), int(self.last) + 1))

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"


def _address(text: str) -> IPv4Address:
    address = ip_address(text.strip())
    if not isinstance(address, IPv4Address):
        raise ValueError(f"{text.strip()!r} is not an IPv4 address")  # noqa: TRY004  pydantic wants ValueError
    return address


def _range(value: object) -> object:
    return AddressRange.parse(value) if isinstance(value, str) else value


def _options(value: object) -> object:
    return custom.encode_all(value) if isinstance(value, dict) else value


def _rate(value: object) -> object:
    """Bits per second from words like "10Gbit"."""
    if not isinstance(value, str):
        return value
    found = _RATE.fullmatch(value.strip())
    if found is None:
        raise ValueError(f"{value!r} is no rate")
    return int(float(found[1]) * _UNITS[found[2]])


Rate = Annotated[int, BeforeValidator(_rate)]
Range = Annotated[AddressRange, BeforeValidator(_range)]
Pattern = Annotated[str, AfterValidator(machine_pattern)]
Options = Annotated[Mapping[int, bytes], BeforeValidator(_options)]


class ServerConfig(BaseModel, frozen=True, extra="forbid"):
    """The `[server]` table."""

    state_dir: Path = Path("/var/lib/pxeboot")
    """Database, image library, caches, and the Unix socket of the command line."""
    http_port: int = Field(default=80, ge=1, le=65535)
    """Node-facing, on our addresses in the networks below only."""
    admin: str = Field(default="127.0.0.1:8080", pattern=r"^\d+\.\d+\.\d+\.\d+:\d+$")
    """The operators' API, off the boot networks by default."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    unknown: Literal["boot", "hold", "ignore"] = "boot"
    """Machines of which no operator has spoken and which no pattern but "*" claims: the "*" group boots them;
    or they get an address for a minute at a time until somebody names them; or no answer."""

    @property
    def admin_endpoint(self) -> tuple[str, int]:
        """Address and port."""
        host, _, port = self.admin.partition(":")
        return host, int(port)

    @model_validator(mode="after")
    def _admin_is_an_endpoint(self) -> Self:
        host, port = self.admin_endpoint
        _address(host)
        if not 1 <= port <= 65535:
            raise ValueError(f"admin: {port} is not a port")
        return self


class NetworkConfig(BaseModel, frozen=True, extra="forbid"):
    """One `[[network]]`: a subnet whose machines we give addresses and boot."""

    subnet: IPv4Network
    interface: str | None = Field(default=None, min_length=1, max_length=15)
    """Left out: the subnet is reached through DHCP relays only."""
    mode: Literal["dhcp", "proxy"] = "dhcp"
    """"dhcp": addresses and boot; "proxy": boot answers only, beside another DHCP server."""
    pool: tuple[Range, ...] = ()
    router: IPv4Address | None = None
    """Default: our own address, which is the director's where IPVS forwards by NAT."""
    dns: tuple[IPv4Address, ...] | None = None
    """Default: our own address."""
    lease_seconds: int = Field(default=3600, ge=60, le=0xFFFFFFFE)
    authoritative: bool = False
    """Whether we contradict machines that claim addresses we know nothing of. Off: another server may."""
    options: Options = {}
    """DHCP options by name or number, as bytes by code; a group's and a node's hold over them."""
    probe_conflicts: bool = True
    """Ask by ARP whether an address is taken before it is first offered. Off where routers answer for all."""

    @model_validator(mode="after")
    def _a_proxy_gives_no_addresses(self) -> Self:
        if self.mode == "proxy" and self.pool:
            raise ValueError("mode: a proxy has no pool, for another server gives the addresses")
        return self

    @model_validator(mode="after")
    def _addresses_lie_in_the_subnet(self) -> Self:
        for item in self.pool:
            for end in (item.first, item.last):
                if end not in self.subnet:
                    raise ValueError(f"pool: {end} is outside {self.subnet}")
            if self.subnet.prefixlen < 31 and {item.first, item.last} & {
                self.subnet.network_address,
                self.subnet.broadcast_address,
            }:
                raise ValueError(f"pool: {item} holds the network or the broadcast address of {self.subnet}")
        for one, other in combinations(self.pool, 2):
            if one.first <= other.last and other.first <= one.last:
                raise ValueError(f"pool: {one} and {other} overlap")
        if self.router is not None and self.router not in self.subnet:
            raise ValueError(f"router: {self.router} is outside {self.subnet}")
        return self


class TftpConfig(BaseModel, frozen=True, extra="forbid"):
    """The `[tftp]` table."""

    max_block_size: int = Field(default=1468, ge=8, le=65464)
    """Largest block granted, bytes: Ethernet 1500 - IP 20 - UDP 8 - TFTP 4 (RFC 2348)."""
    max_window_size: int = Field(default=64, ge=1, le=65535)
    """Most blocks sent before an ACK (RFC 7440)."""
    max_transfers: int = Field(default=4096, ge=1, le=60000)
    """Transfers under way at once; as many more wait for their turn."""
    root: Path | None = None
    """A folder whose files can be read too. Names are looked for there last, and nothing outside is read."""
    single_port: bool = False
    """Send from port 69 as well, for firewalls and address translators that know nothing of TFTP."""


class DnsConfig(BaseModel, frozen=True, extra="forbid"):
    """The `[dns]` table; without it there is no DNS server."""

    domain: str = Field(pattern=rf"^{LABEL.pattern}(\.{LABEL.pattern})*$", max_length=200)
    """Names of nodes are answered below it, and the reverse names of our networks."""
    forward: tuple[IPv4Address, ...] = ()
    """Servers that are asked everything else; none: it is refused."""


class HttpConfig(BaseModel, frozen=True, extra="forbid"):
    """The `[http]` table: how much nodes get at once. Kernel and initrd are never refused."""

    link: Rate | None = None
    """What our link carries, bits per second; root downloads are then so many that each gets `min_share`."""
    min_share: Rate = Field(default=200_000_000, ge=1)
    """Bits per second; at 200 Mbit/s an image of 60 MB comes in 3 s."""
    max_downloads: int | None = Field(default=None, ge=1)
    """Root downloads at once, in place of `link`. Neither: no limit."""
    max_connections_per_address: int = Field(default=64, ge=8)
    """Firmware and our initrd use fewer than 4."""

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        if self.link is not None and self.max_downloads is not None:
            raise ValueError("max_downloads: link limits the downloads already")
        return self

    @property
    def slots(self) -> int | None:
        """Root downloads at once; None: no limit."""
        return self.max_downloads if self.link is None else max(1, self.link // self.min_share)


class ImagesConfig(BaseModel, frozen=True, extra="forbid"):
    """The `[images]` table: signatures of images, Ed25519 keys in PEM files."""

    key: Path | None = None
    """The operator's private key: what is built or imported here is signed with it."""
    trusted: tuple[Path, ...] = ()
    """Public keys: no image is booted that none of them has signed. Left out: no signature is asked for."""


class HttpsConfig(BaseModel, frozen=True, extra="forbid"):
    """The `[https]` table; with it nodes speak HTTPS from our initrd on. Firmware and loaders speak HTTP."""

    port: int = Field(default=443, ge=1, le=65535)
    certificate: Path | None = None
    """The operator's, PEM, with its chain; left out: what `pxeboot tls init` made."""
    key: Path | None = None
    """Left out: it is in the certificate's file."""
    authority: Path | None = None
    """The root that nodes shall trust, PEM; it goes with every initrd."""

    @model_validator(mode="after")
    def _certificate_and_authority(self) -> Self:
        if (self.certificate is None) != (self.authority is None):
            raise ValueError("authority: certificate and authority go together")
        if self.key is not None and self.certificate is None:
            raise ValueError("key: there is no certificate that it is for")
        return self


class LaidFile(Laid, frozen=True, extra="forbid"):
    """A value of a group's `files`: `"motd"`, or `{ source = "app.conf", template = true, mode = 0o640 }`."""

    source: Path
    """Relative to the configuration file. Read at each boot."""


def _laid(value: object) -> object:
    return {"source": value} if isinstance(value, str) else value


class GroupConfig(BaseModel, frozen=True, extra="forbid"):
    """One `[[group]]`: machines that boot the same image in the same way."""

    name: Name
    image: str = Field(min_length=1)
    """A tag of the image library."""
    match: tuple[Pattern, ...] = Field(min_length=1)
    """MAC addresses or their beginnings, UUIDs; "*" is every machine not claimed elsewhere."""
    loader: Literal["ipxe", "pxelinux"] = "ipxe"
    kernel_args: str = Field(default="", max_length=1000, pattern=r"^[ -~]*$")
    options: Options = {}
    """DHCP options by name or number, as bytes by code; they hold over the network's."""
    files: Mapping[Inside, Annotated[LaidFile, BeforeValidator(_laid)]] = {}
    """What is laid over the root at boot, by path inside."""
    initrd: Mapping[Inside, Path] = {}
    """What is added to the initrd, by path inside it: firmware of network cards, say."""
    vars: Vars = {}
    """Words for templates; a node's own hold over them."""


class Config(BaseModel, frozen=True, extra="forbid"):
    """The whole file."""

    server: ServerConfig = ServerConfig()
    network: tuple[NetworkConfig, ...] = Field(min_length=1)
    tftp: TftpConfig = TftpConfig()
    dns: DnsConfig | None = None
    http: HttpConfig = HttpConfig()
    https: HttpsConfig | None = None
    images: ImagesConfig = ImagesConfig()
    group: tuple[GroupConfig, ...] = ()
    service: tuple[ServiceConfig, ...] = ()
    loaders: dict[str, Path] = {}
    """The operator's boot loaders, by platform (`arm64-uefi`) or number of DHCP option 93."""

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        _refuse_overlapping_networks(self.network)
        _refuse_doubled_claims(self.group)
        service.refuse_rivals(self.service)
        _refuse_homeless_services(self)
        if self.https is not None and self.https.port == self.server.http_port:
            raise ValueError(f"https: port {self.https.port} is server.http_port already")
        return self

    def beside(self, folder: Path) -> Self:
        """The same, with relative paths of files taken from the configuration file's `folder`."""
        groups = tuple(
            group.model_copy(
                update={
                    "files": {
                        path: file.model_copy(update={"source": folder / file.source})
                        for path, file in group.files.items()
                    },
                    "initrd": {path: folder / file for path, file in group.initrd.items()},
                }
            )
            for group in self.group
        )
        return self.model_copy(update={"group": groups})

    def group_named(self, name: str) -> GroupConfig | None:
        """The group of that name, if there is one."""
        return next((group for group in self.group if group.name == name), None)


def _refuse_overlapping_networks(networks: tuple[NetworkConfig, ...]) -> None:
    for one, other in combinations(networks, 2):
        if one.subnet.overlaps(other.subnet):
            raise ValueError(f"network: {one.subnet} and {other.subnet} overlap")
        if one.interface is not None and one.interface == other.interface:
            raise ValueError(f"network: interface {one.interface!r} stands in two networks")
    if not any(network.interface for network in networks):
        raise ValueError("network: none names an interface to listen on")


def _refuse_doubled_claims(groups: tuple[GroupConfig, ...]) -> None:
    for one, other in combinations(groups, 2):
        if one.name == other.name:
            raise ValueError(f"group: two groups are called {one.name!r}")
        for pattern in one.match:
            for rival in other.match:
                if _meet(pattern, rival):
                    raise ValueError(
                        f"group: {one.name!r} and {other.name!r} claim the same machines ({pattern}, {rival})"
                    )


def _refuse_homeless_services(config: Config) -> None:
    for item in config.service:
        if config.group_named(item.group) is None:
            known = ", ".join(repr(group.name) for group in config.group) or "none"
            raise ValueError(f"service: {item.name!r} is for group {item.group!r}; there is {known}")
        for pool in (pool for network in config.network for pool in network.pool):
            if isinstance(item.vip, IPv4Address) and item.vip in pool:
                raise ValueError(f"vip: {item.vip} of service {item.name!r} is in the pool {pool}")


def _meet(one: str, other: str) -> bool:
    """Whether some machine fits both patterns; "*" alone yields to any other, so it meets only itself."""
    if ANY_MACHINE in (one, other):
        return one == other
    if "*" in one and "*" in other:
        a, b = one.rstrip("*"), other.rstrip("*")
        return a.startswith(b) or b.startswith(a)
    return matches(one, other) or matches(other, one)


def matches(pattern: str, name: str) -> bool:
    """Whether a MAC address or UUID, in lower case, fits a pattern of `match`."""
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def parse(text: str, name: str = "pxeboot.toml") -> Config:
    """Read a configuration. Raises PxebootError with file, key, value and remedy."""
    return toml.read(text, name, Config, _remedy)


def load(path: Path) -> Config:
    """Read a configuration file. Raises PxebootError."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise PxebootError(
            f"{path}: there is no such file", "write one (see README.md) or name it with -c"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise PxebootError(
            f"{path}: cannot be read: {error}", "it must be a readable file in UTF-8"
        ) from error
    return parse(text, str(path)).beside(path.parent.absolute())


_HINTS = {
    "max_block_size": "1468 fits one Ethernet frame; RFC 2348 allows 8 to 65464",
    "subnet": 'write the network itself, like "10.77.0.0/24"',
    "pool": 'write ranges inside the subnet that do not overlap, like ["10.77.0.100-10.77.0.199"]',
    "domain": 'write a domain in lower case, like "boot.example"',
    "mode": 'leave the pool out, or write mode = "dhcp"; "proxy" is for a network with another DHCP server',
    "link": 'write a rate, like "10Gbit"',
    "min_share": 'write a rate, like "200Mbit"',
    "https": "give HTTPS a port of its own, like 443",
    "authority": "name the root certificate that nodes shall trust, or leave both out: `pxeboot tls init`",
    "key": "name the certificate and the authority too",
    "max_downloads": "write link and min_share, or max_downloads alone",
    "match": 'write MAC addresses, beginnings like "52:54:00:*", UUIDs, or "*"',
    "admin": 'write an address and a port, like "127.0.0.1:8080"',
    "network": 'write a [[network]] with interface = "eth1" and subnet = "10.77.0.0/24", say',
    "files": 'write "/path/in/the/root" = "local file", or { source = "local file", template = true }',
    "initrd": 'write "/lib/firmware/card.fw" = "local file"',
    "vars": 'write lower-case names and texts, like nfs_server = "10.77.0.5"',
    "group": "let each machine fit one group only",
    **service.HINTS,
}


def _remedy(error: ErrorDetails) -> str:
    names = [part for part in error["loc"] if isinstance(part, str)]
    subject = toml.told(error).partition(":")[0]
    if "options" in names:
        return custom.remedy(subject)
    for name in [*reversed(subject.split()), *reversed(names)]:
        if name in _HINTS:
            return _HINTS[name]
    return "see the configuration section of README.md"
