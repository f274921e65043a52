"""The `[[service]]` tables: a virtual service of IPVS and what stands behind it.

Words and bounds are the kernel's (include/uapi/linux/ip_vs.h; `ipvsadm(8)`). What can be judged from one
table is judged here, what needs the others in `config.py`, what needs this machine in `preflight.py`.
"""

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from itertools import combinations
from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, model_validator

from pxeboot.balancer import check
from pxeboot.balancer.check import CheckConfig
from pxeboot.words import Name

Address = IPv4Address | IPv6Address
Forward = Literal["nat", "dr", "tun"]
Protocol = Literal["tcp", "udp", "sctp"]
Scheduler = Literal[
    "rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh"
]  # fmt: skip
SchedulerFlag = Literal["fallback", "port", "one-packet"]
Weight = Annotated[int, Field(ge=0, le=65535)]

_HASHING = frozenset({"sh", "mh"})


class SorryServer(BaseModel, frozen=True, extra="forbid"):
    """Who answers while the service has lost its quorum."""

    address: Address
    port: int | None = Field(default=None, ge=1, le=65535)
    """Default: the port of the service. Only "nat" can change it."""
    forward: Forward = "nat"


class ServiceConfig(BaseModel, frozen=True, extra="forbid"):
    """One `[[service]]`: an address and a port that the ready nodes of a group answer for."""

    name: Name
    vip: Address
    """The virtual address. We put it on the director, and the agent on the nodes where `forward` asks it."""
    port: int | None = Field(default=None, ge=0, le=65535)
    """0: every port, which needs `persistence_seconds`."""
    firewall_mark: int | None = Field(default=None, ge=1, le=0xFFFFFFFF)
    """In place of `port`: all packets that your firewall has marked so, as one service."""
    protocol: Protocol = "tcp"
    interface: str | None = Field(default=None, min_length=1, max_length=15)
    """Where the virtual address is put; default: the interface with an address in its subnet."""
    manage_vip: bool = True
    """False: somebody else (VRRP) puts the virtual address on this box and takes it away."""

    group: Name
    """The nodes behind it."""
    forward: Forward = "nat"
    """"nat": addresses are translated, nodes answer through us; "dr" (direct routing): same segment, nodes
    answer by themselves; "tun": IP in IP, nodes may be anywhere."""
    real_port: int | None = Field(default=None, ge=1, le=65535)
    """The port on the nodes, where it is another; only "nat" can change it."""
    node_prefix: IPv6Network | None = None
    """For an IPv6 service: the /64 of the nodes. Each has its EUI-64 address in it (RFC 4291 App. A)."""

    scheduler: Scheduler = "wlc"
    scheduler_flags: tuple[SchedulerFlag, ...] = ()
    """"fallback" and "port" for sh and mh: go on to another server where the first cannot take it; hash
    the port too. "one-packet" for UDP: every datagram is scheduled by itself."""
    persistence_seconds: int | None = Field(default=None, ge=1, le=2_678_400)
    """A client keeps its server until it has had no connection for so long (the kernel's bound: 31 days)."""
    persistence_prefix: int | None = Field(default=None, ge=1, le=128)
    """Clients that share so many leading bits of their address count as one; default: each by itself."""

    weight: Weight = 100
    """A node's share. 0: it gets nothing new."""
    weights: Mapping[str, Weight] = {}
    """Other shares, by a node's name or MAC address."""
    max_connections: int = Field(default=0, ge=0, le=0xFFFFFFFF)
    """Per node, from where on it gets no new ones; 0: no bound."""
    min_connections: int = Field(default=0, ge=0, le=0xFFFFFFFF)
    """Where it gets new ones again; 0: at three quarters of `max_connections`."""

    check: CheckConfig | None = None
    """Default: for TCP on one port, that it accepts a connection; else, that the node is ready."""
    on_failure: Literal["quiesce", "remove"] = "quiesce"
    """A node that fails its check: "quiesce" gives it weight 0, so that its connections go on; "remove" takes
    it out, so that they end."""
    keep_when_all_fail: bool | None = None
    """Where all checks fail at once, it is the checker's network that is broken: keep them in service.
    Default: unless there is a sorry server."""
    quorum: int = Field(default=1, ge=1, le=65535)
    """Nodes that must pass for the service to be up; else its sorry server answers."""
    hysteresis: int = Field(default=0, ge=0, le=65535)
    """The quorum is lost below `quorum - hysteresis` and won at `quorum + hysteresis`."""
    sorry_server: SorryServer | None = None
    drain_seconds: float = Field(default=30, ge=0, le=86400)
    """The longest that a node which leaves is given to finish its connections."""
    slow_start_seconds: float = Field(default=0, ge=0, le=3600)
    """A node that comes in has its full weight after so long; before, a growing part."""

    @model_validator(mode="after")
    def _names_what_is_balanced(self) -> Self:
        if (self.port is None) == (self.firewall_mark is None):
            raise ValueError("port: a service has either a port or a firewall_mark")
        if self.port == 0 and self.persistence_seconds is None:
            raise ValueError("port: 0 (every port) needs persistence_seconds")
        if self.vip.is_unspecified or self.vip.is_multicast or self.vip.is_loopback:
            raise ValueError(f"vip: {self.vip} cannot be a virtual address")
        return self

    @model_validator(mode="after")
    def _can_be_forwarded(self) -> Self:
        if self.forward != "nat" and self.real_port not in (None, self.port):
            raise ValueError(f"real_port: forward = {self.forward!r} cannot change the port")
        if self.real_port is not None and not self.port:
            raise ValueError("real_port: a service of many ports keeps them")
        if self.vip.version == 6 and (self.node_prefix is None or self.node_prefix.prefixlen != 64):
            raise ValueError("node_prefix: an IPv6 service needs the /64 of its nodes' addresses")
        if self.vip.version == 4 and self.node_prefix is not None:
            raise ValueError("node_prefix: is for IPv6 services")
        return self

    @model_validator(mode="after")
    def _can_be_scheduled(self) -> Self:
        hashing = {"fallback", "port"} & set(self.scheduler_flags)
        if hashing and self.scheduler not in _HASHING:
            raise ValueError(f"scheduler_flags: {min(hashing)!r} is for sh and mh, not {self.scheduler}")
        if "one-packet" in self.scheduler_flags and self.protocol != "udp":
            raise ValueError("scheduler_flags: 'one-packet' is for UDP")
        if self.persistence_prefix is not None:
            if self.persistence_seconds is None:
                raise ValueError("persistence_prefix: needs persistence_seconds")
            if self.persistence_prefix > self.vip.max_prefixlen:
                raise ValueError(f"persistence_prefix: {self.persistence_prefix} is longer than an address")
        if self.max_connections and self.min_connections >= self.max_connections:
            raise ValueError("min_connections: must be below max_connections")
        if self.min_connections and not self.max_connections:
            raise ValueError("min_connections: needs max_connections")
        return self

    @model_validator(mode="after")
    def _can_be_judged(self) -> Self:
        if self.hysteresis >= self.quorum:
            raise ValueError(f"hysteresis: {self.hysteresis} must be below the quorum of {self.quorum}")
        asked = self.check.port if self.check is not None else None
        if self.check is not None and self.check.kind != "script" and not (asked or self.port):
            raise ValueError("check: a service of many ports must say which port is asked")
        if self.check is not None and self.protocol == "sctp" and self.check.kind != "script" and not asked:
            raise ValueError("check: a check of SCTP needs a script, or the port of something else to ask")
        sorry = self.sorry_server
        if sorry is not None and sorry.address.version != self.vip.version:
            raise ValueError(f"sorry_server: {sorry.address} is not of the vip's family")
        if sorry is not None and sorry.forward != "nat" and sorry.port not in (None, self.port):
            raise ValueError(f"sorry_server: forward = {sorry.forward!r} cannot change the port")
        return self

    @property
    def node_port(self) -> int:
        """The port on the nodes; 0: the one that the packet names."""
        return self.real_port or self.port or 0

    @property
    def health_check(self) -> CheckConfig | None:
        """How its nodes are asked; None: ready is enough."""
        if self.check is None and self.protocol == "tcp" and self.port:
            return CheckConfig(kind="tcp")
        return self.check

    @property
    def check_port(self) -> int:
        """Where the check asks; 0 where it has no port."""
        chosen = self.check.port if self.check is not None else None
        return chosen or self.node_port

    @property
    def holds(self) -> bool:
        """Whether nodes that fail all at once are kept."""
        return self.sorry_server is None if self.keep_when_all_fail is None else self.keep_when_all_fail

    @property
    def claim(self) -> tuple[object, ...]:
        """What no other service may have too: what the kernel tells services apart by."""
        if self.firewall_mark is not None:
            return self.vip.version, self.firewall_mark
        return self.protocol, self.vip, self.port


def refuse_rivals(services: Iterable[ServiceConfig]) -> None:
    """Refuse services that the kernel could not tell apart, or that share a name. Raises ValueError."""
    for one, other in combinations(services, 2):
        if one.name == other.name:
            raise ValueError(f"service: two services are called {one.name!r}")
        if one.claim == other.claim:
            raise ValueError(f"service: {one.name!r} and {other.name!r} are the same virtual service")


HINTS: Mapping[str, str] = {
    "service": "give each service a name of its own, and a port or a firewall_mark of its own",
    "vip": 'write an address outside every pool that no machine has, like "10.77.0.10"',
    "port": "write port = 80, or firewall_mark = 1 for packets that your firewall marks",
    "real_port": 'leave real_port out, or write forward = "nat"',
    "node_prefix": 'write the /64 that the nodes are in, like "fd00:77::/64"',
    "scheduler": "write rr, wrr, lc, wlc, lblc, lblcr, dh, sh, sed, nq, fo, ovf or mh",
    "scheduler_flags": 'sh and mh take ["fallback", "port"], UDP takes ["one-packet"]',
    "persistence_prefix": "write persistence_seconds too, and a prefix of at most 32 bits (IPv6: 128)",
    "min_connections": "write max_connections = 1000 and min_connections = 750, say",
    "on_failure": 'write "quiesce" (weight 0, its connections go on) or "remove" (they end)',
    "quorum": "write how many nodes must pass for the service to be up, at least 1",
    "slow_start_seconds": "write seconds, from 0 to 3600",
    "drain_seconds": "write seconds, from 0 to 86400",
    "hysteresis": "write a quorum larger than it, like quorum = 3 and hysteresis = 1",
    "sorry_server": 'write a table, like { address = "10.77.0.5", port = 80 }',
    "forward": 'write forward = "nat", "dr" or "tun"',
    **check.HINTS,
}
