"""The kernel's IPVS table as values: virtual services, real servers, and what it counts.

Source: include/uapi/linux/ip_vs.h, net/netfilter/ipvs/ip_vs_ctl.c.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Self

from pxeboot.balancer.service import Address, Forward, ServiceConfig, SorryServer

PERSISTENT = 0x1
ONE_PACKET = 0x4
SCHEDULER_1 = 0x8
SCHEDULER_2 = 0x10
FLAGS = PERSISTENT | ONE_PACKET | SCHEDULER_1 | SCHEDULER_2 | 0x20
"""Those that a configuration can set; the kernel has others for itself."""

FLAG_VALUES = {"fallback": SCHEDULER_1, "port": SCHEDULER_2, "one-packet": ONE_PACKET}
"""sh and mh give their two flags the same bits (IP_VS_SVC_F_SCHED_SH_FALLBACK, IP_VS_SVC_F_SCHED_SH_PORT)."""


@dataclass(frozen=True, slots=True)
class ServiceKey:
    """What the kernel tells virtual services apart by; with a firewall `mark` only the family counts."""

    version: int
    """Of the addresses: 4 or 6."""
    protocol: str = ""
    address: Address | None = None
    port: int = 0
    mark: int = 0

    @classmethod
    def of(cls, config: ServiceConfig) -> Self:
        """The key of a configured service."""
        if config.firewall_mark is not None:
            return cls(config.vip.version, mark=config.firewall_mark)
        return cls(config.vip.version, config.protocol, config.vip, config.port or 0)

    @classmethod
    def parse(cls, text: str) -> Self:
        """What `str` wrote. Raises ValueError."""
        kind, first, second = text.split(" ")
        if kind == "mark":
            return cls(int(second), mark=int(first))
        address = ip_address(first)
        return cls(address.version, kind, address, int(second))

    def __str__(self) -> str:
        return (
            f"mark {self.mark} {self.version}" if self.mark else f"{self.protocol} {self.address} {self.port}"
        )


@dataclass(frozen=True, slots=True)
class Virtual:
    """A virtual service as the kernel has it."""

    key: ServiceKey
    scheduler: str
    flags: int = 0
    timeout: int = 0
    """Of persistence, seconds."""
    prefix: int = 32
    """Bits of a client's address that count for persistence."""

    @classmethod
    def of(cls, config: ServiceConfig) -> Self:
        """A configured service."""
        flags = sum({FLAG_VALUES[name] for name in config.scheduler_flags})
        if config.persistence_seconds is not None:
            flags |= PERSISTENT
        prefix = config.persistence_prefix or config.vip.max_prefixlen
        return cls(ServiceKey.of(config), config.scheduler, flags, config.persistence_seconds or 0, prefix)


RealId = tuple[Address, int]


@dataclass(frozen=True, slots=True)
class Real:
    """A real server of a service as the kernel has it."""

    address: Address
    port: int
    forward: Forward
    weight: int
    upper: int = 0
    lower: int = 0
    """Thresholds of its connections; 0: none."""

    @classmethod
    def of(cls, config: ServiceConfig, address: Address, weight: int, port: int | None = None) -> Self:
        """A node of a configured service, or whoever else is there at another port."""
        return cls(
            address,
            config.node_port if port is None else port,
            config.forward,
            weight,
            config.max_connections,
            config.min_connections,
        )

    @classmethod
    def sorry(cls, config: ServiceConfig, server: SorryServer) -> Self:
        """The sorry server of a configured service."""
        return cls(server.address, server.port or config.port or 0, server.forward, config.weight or 1)

    @property
    def id(self) -> RealId:
        """What the kernel tells the servers of one service apart by."""
        return self.address, self.port


@dataclass(frozen=True, slots=True)
class Counts:
    """Connections of a real server at this moment. The kernel calls `inactive` what is closing, or UDP."""

    active: int = 0
    inactive: int = 0
    persistent: int = 0
    """Templates of persistence."""

    @property
    def all(self) -> int:
        """Connections of either kind."""
        return self.active + self.inactive


@dataclass(frozen=True, slots=True)
class Traffic:
    """Totals since the kernel has the entry, and rates per second (the kernel's average)."""

    connections: int = 0
    packets_in: int = 0
    packets_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    connection_rate: int = 0
    packet_rate_in: int = 0
    packet_rate_out: int = 0
    byte_rate_in: int = 0
    byte_rate_out: int = 0


@dataclass(frozen=True, slots=True)
class Made:
    """A virtual service that we have put into the kernel, or are about to: what must go with it."""

    key: ServiceKey
    vip: Address
    interface: str = ""
    """Where we have put its address; "": it was there before, or is somebody else's to put."""


NO_COUNTS = Counts()
NO_TRAFFIC = Traffic()


@dataclass(frozen=True, slots=True)
class Entry:
    """A virtual service with its real servers, and what the kernel has counted of them."""

    virtual: Virtual
    reals: Mapping[RealId, Real] = field(default_factory=dict)
    counts: Mapping[RealId, Counts] = field(default_factory=dict)
    traffic: Traffic = NO_TRAFFIC
    traffic_of: Mapping[RealId, Traffic] = field(default_factory=dict)


Table = Mapping[ServiceKey, Entry]
