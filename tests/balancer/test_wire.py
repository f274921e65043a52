"""IPVS's messages: what we write, pyroute2 reads, and what the kernel would say of it reads back."""

import socket
import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.generic import ipvs as oracle

from pxeboot.balancer import wire
from pxeboot.balancer.plan import Change, Verb
from pxeboot.balancer.service import ServiceConfig
from pxeboot.balancer.table import Counts, Real, Traffic, Virtual

STATS64 = b"".join(wire._attribute(kind, struct.pack("=Q", kind * 10)) for kind in range(1, 11))


def config(**keys: object) -> ServiceConfig:
    settled = {"name": "www", "vip": "10.77.0.10", "port": 80, "group": "web", **keys}
    return ServiceConfig.model_validate(settled)


IPV6 = {"vip": "fd00:77::10", "node_prefix": "fd00:77::/64"}
CONFIGS = [
    config(),
    config(
        scheduler="mh", scheduler_flags=["port", "fallback"], persistence_seconds=300, persistence_prefix=24
    ),
    config(protocol="udp", forward="tun", max_connections=100, min_connections=50),
    config(port=None, firewall_mark=7),
    config(**IPV6, forward="dr", persistence_seconds=60, persistence_prefix=64),
    config(**IPV6, port=None, firewall_mark=0xFFFFFFFF),
]


def real_of(service: ServiceConfig, last: int = 1, weight: int = 5) -> Real:
    return Real.of(
        service, ip_address("fd00:77::1" if service.vip.version == 6 else "10.77.0.0") + last, weight
    )


def in_dump(real: Real, counts: Counts = Counts(), stats: bytes = STATS64) -> bytes:  # noqa: B008  frozen
    """As ip_vs_genl_fill_dest writes it, for a server that we have written."""
    numbers = (counts.active, counts.inactive, counts.persistent)
    more = b"".join(wire._attribute(kind, struct.pack("=I", value)) for kind, value in enumerate(numbers, 7))
    stats = wire._attribute(10 | 0x8000, bytes(44)) + wire._attribute(12 | 0x8000, stats)
    return wire._attribute(2 | 0x8000, wire._dest(real) + more + stats)


@pytest.mark.parametrize("service", CONFIGS)
def test_pyroute2_reads_what_we_write(service: ServiceConfig) -> None:
    real = real_of(service)
    body = wire.encode(Change(Verb.ADD, Virtual.of(service), real))
    message = oracle.ipvsmsg(struct.pack("=IHHII", 16 + len(body), 0, 0, 0, 0) + body)
    message.decode()
    assert message["cmd"] == oracle.IPVS_CMD_NEW_DEST
    key, dest = message.get_attr("IPVS_CMD_ATTR_SERVICE"), message.get_attr("IPVS_CMD_ATTR_DEST")
    assert key.get_attr("IPVS_SVC_ATTR_AF") == (
        socket.AF_INET6 if service.vip.version == 6 else socket.AF_INET
    )
    assert key.get_attr("IPVS_SVC_ATTR_FWMARK") == service.firewall_mark
    assert key.get_attr("IPVS_SVC_ATTR_PORT") == service.port
    assert dest.get_attr("IPVS_DEST_ATTR_PORT") == real.port
    assert dest.get_attr("IPVS_DEST_ATTR_FWD_METHOD") == {"nat": 0, "tun": 2, "dr": 3}[service.forward]
    assert dest.get_attr("IPVS_DEST_ATTR_WEIGHT") == 5
    assert dest.get_attr("IPVS_DEST_ATTR_U_THRESH") == service.max_connections
    assert dest.get_attr("IPVS_DEST_ATTR_L_THRESH") == service.min_connections


@pytest.mark.parametrize("service", CONFIGS)
def test_a_service_and_its_servers_read_back(service: ServiceConfig) -> None:
    virtual, real = Virtual.of(service), real_of(service)
    message = wire._attribute(1 | 0x8000, wire._service(virtual) + wire._attribute(12 | 0x8000, STATS64))
    assert wire.decode_service(message) == (virtual, Traffic(*range(10, 110, 10)))
    counts = Counts(3, 2, 1)
    servers = wire.Servers(service.vip.version).decode([in_dump(real, counts)])
    assert servers == [(real, counts)]
    assert wire.decode_server_traffic(in_dump(real)) == Traffic(*range(10, 110, 10))


def test_only_what_has_changed_is_decoded_again() -> None:
    service = config()
    one, two = real_of(service, 1), real_of(service, 2)
    servers = wire.Servers(4)
    first = servers.decode([in_dump(one), in_dump(two)])
    again = servers.decode([in_dump(two, stats=bytes(len(STATS64))), in_dump(one, Counts(1))])
    assert again == [(two, Counts()), (one, Counts(1))]
    assert again[0] is first[1]  # other statistics, the same server
    changed = real_of(service, 2, weight=0)
    assert servers.decode([in_dump(changed)]) == [(changed, Counts())]
    assert servers.decode([]) == []


def test_servers_that_differ_after_their_statistics_are_not_taken_for_the_same() -> None:
    known = in_dump(real_of(config()))[4:]
    weights = [wire._attribute(4, struct.pack("=I", weight)) for weight in (9, 8)]
    odd = [wire._attribute(2 | 0x8000, known + weight) for weight in weights]  # a kernel with another order
    servers = wire.Servers(4)
    for _ in range(2):
        assert [real.weight for real, _ in servers.decode(odd)] == [9, 8]


@given(st.binary(max_size=200))
def test_any_bytes_have_attributes_or_none(data: bytes) -> None:
    assert all(len(payload) <= len(data) for _, payload in wire.attributes(data))
