"""From a question to an answer: our domain, and the reverse names of our networks. Pure.

Source: RFC 1034 §4.3.2, RFC 2181 §5 to §7, RFC 2308 (negative answers), RFC 2782 (SRV),
RFC 8482 (ANY).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address

from dnslib import AAAA, NS, PTR, QTYPE, RCODE, RD, RR, SOA, SRV, A, DNSLabel

TTL_SECONDS = 30
"""Short: a node may come back with another address."""
NEGATIVE_TTL_SECONDS = 10
"""Shorter: a name that is missing now may be given in a moment (RFC 2308 §5)."""
SERVER_NAME = "pxeboot"
_REVERSE = DNSLabel("in-addr.arpa")
_ANY = 255
Address = IPv4Address | IPv6Address


class Outcome(Enum):
    """What became of a question; the value is the response code."""

    FOUND = RCODE.NOERROR
    NO_SUCH_NAME = RCODE.NXDOMAIN
    NOT_OURS = RCODE.REFUSED


@dataclass(frozen=True, slots=True)
class Answer:
    """Records for the answer section; for the authority section the SOA, where there are none (RFC 2308);
    and addresses that the asker would ask for next."""

    outcome: Outcome
    records: tuple[RR, ...] = ()
    authority: tuple[RR, ...] = ()
    additional: tuple[RR, ...] = ()


@dataclass(frozen=True, slots=True)
class Published:
    """A service that is reached at an address and a port of its own."""

    name: str
    protocol: str
    """`tcp`, `udp` or `sctp`."""
    port: int


@dataclass(frozen=True, slots=True)
class Zone:
    """All that this server knows for certain.

    `hosts` has the addresses of nodes and services by their one-label name, `names` the same the other way
    round; both have our own. `services` has the ports by names like `_www`, `_tcp` (RFC 2782). `serial` grows
    with every change (RFC 1982).
    """

    domain: str
    hosts: Mapping[str, tuple[Address, ...]]
    names: Mapping[Address, str]
    services: Mapping[tuple[str, str], int]
    networks: tuple[IPv4Network, ...]
    serial: int

    def answer(self, name: DNSLabel, rtype: int) -> Answer:
        """Answer a question of class IN."""
        apex = DNSLabel(self.domain)
        if name.matchSuffix(apex):
            return self._forward(name, name.stripSuffix(apex), apex, rtype)
        if name.matchSuffix(_REVERSE):
            return self._reverse(name, rtype)
        return Answer(Outcome.NOT_OURS)

    def _forward(self, name: DNSLabel, below: DNSLabel, apex: DNSLabel, rtype: int) -> Answer:
        match [label.decode("ascii", "replace").lower() for label in below.label]:
            case []:
                return self._apex(apex, rtype)
            case [host] if host in self.hosts:
                return self._select(apex, rtype, self._addresses(name, host))
            case [protocol] if any(protocol == under for _, under in self.services):
                return self._select(apex, rtype, {})  # nothing here, but names below it (RFC 8020)
            case [service, protocol] if (service, protocol) in self.services:
                target = service.removeprefix("_")
                data = SRV(0, 100, self.services[service, protocol], f"{target}.{self.domain}")
                held = {QTYPE.SRV: (RR(name, QTYPE.SRV, ttl=TTL_SECONDS, rdata=data),)}
                return self._select(apex, rtype, held, self._whereabouts(target))
            case _:
                return self._no_such_name(apex)

    def _reverse(self, name: DNSLabel, rtype: int) -> Answer:
        labels = [label.decode("ascii", "replace") for label in name.stripSuffix(_REVERSE).label]
        if len(labels) == 3:  # the apex of a reverse zone: `0.77.10.in-addr.arpa`
            first = _address(["0", *labels])
            if first is None or not any(first in _whole(network) for network in self.networks):
                return Answer(Outcome.NOT_OURS)
            return self._apex(name, rtype)
        address = _address(labels)
        if address is None or not any(address in network for network in self.networks):
            return Answer(Outcome.NOT_OURS)
        apex = DNSLabel(name.label[1:])
        host = self.names.get(address)
        if host is None:
            return self._no_such_name(apex)
        pointer = RR(name, QTYPE.PTR, ttl=TTL_SECONDS, rdata=PTR(f"{host}.{self.domain}"))
        return self._select(apex, rtype, {QTYPE.PTR: (pointer,)})

    def _apex(self, apex: DNSLabel, rtype: int) -> Answer:
        held = {QTYPE.SOA: (self._soa(apex),), QTYPE.NS: (self._ns(apex),)}
        return self._select(apex, rtype, held, self._whereabouts(SERVER_NAME) if rtype == QTYPE.NS else ())

    def _select(
        self, apex: DNSLabel, rtype: int, held: Mapping[int, tuple[RR, ...]], additional: tuple[RR, ...] = ()
    ) -> Answer:
        """The records of that type; none of them is "no data", which the SOA says (RFC 2308 §2.2)."""
        if rtype == _ANY and held:  # those of one type are enough (RFC 8482 §4.1)
            return Answer(Outcome.FOUND, next(iter(held.values())))
        if rtype in held:
            return Answer(Outcome.FOUND, held[rtype], additional=additional)
        return Answer(Outcome.FOUND, authority=(self._soa(apex),))

    def _addresses(self, name: DNSLabel, host: str) -> dict[int, tuple[RR, ...]]:
        """A and AAAA records of a host, under the name as it was asked for."""
        held: dict[int, tuple[RR, ...]] = {}
        for address in self.hosts.get(host, ()):
            four = address.version == 4
            rtype, data = (QTYPE.A, A(str(address))) if four else (QTYPE.AAAA, AAAA(str(address)))
            record = RR(name, rtype, ttl=TTL_SECONDS, rdata=data)
            held[rtype] = (*held.get(rtype, ()), record)
        return held

    def _whereabouts(self, host: str) -> tuple[RR, ...]:
        rows = self._addresses(DNSLabel(f"{host}.{self.domain}"), host).values()
        return tuple(record for row in rows for record in row)

    def _no_such_name(self, apex: DNSLabel) -> Answer:
        return Answer(Outcome.NO_SUCH_NAME, authority=(self._soa(apex),))

    def _soa(self, apex: DNSLabel) -> RR:
        times = (self.serial & 0xFFFFFFFF, 3600, 600, 86400, NEGATIVE_TTL_SECONDS)
        data: RD = SOA(f"{SERVER_NAME}.{self.domain}", f"hostmaster.{self.domain}", times)
        return RR(apex, QTYPE.SOA, ttl=NEGATIVE_TTL_SECONDS, rdata=data)

    def _ns(self, apex: DNSLabel) -> RR:
        return RR(apex, QTYPE.NS, ttl=TTL_SECONDS, rdata=NS(f"{SERVER_NAME}.{self.domain}"))


def make_zone(
    domain: str,
    own: IPv4Address,
    hosts: Mapping[str, tuple[Address, ...]],
    services: Iterable[Published],
    networks: tuple[IPv4Network, ...],
    serial: int,
) -> Zone:
    """A zone of these hosts, of services that are among them, and of ourselves; `own` is our address as the
    asker reaches it."""
    everybody = {**hosts, SERVER_NAME: (own,)}
    names = {address: name for name, row in everybody.items() for address in row}
    ports = {(f"_{item.name}", f"_{item.protocol}"): item.port for item in services}
    return Zone(domain, everybody, names, ports, networks, serial)


def _whole(network: IPv4Network) -> IPv4Network:
    """The reverse zone's range: reverse zones end at octets, so the smallest is a /24."""
    return network if network.prefixlen <= 24 else network.supernet(new_prefix=24)


def _address(labels: list[str]) -> IPv4Address | None:
    try:
        return IPv4Address(".".join(reversed(labels))) if len(labels) == 4 else None
    except ValueError:
        return None
