"""Every way of forwarding carries real traffic through the virtual address, to several machines."""

import socket
import subprocess
from collections import Counter
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from pxeboot.balancer import director, ipvs
from pxeboot.balancer.plan import plan
from pxeboot.balancer.service import ServiceConfig
from pxeboot.balancer.table import Entry, Real, Virtual
from tests.balancer.rack import DIRECTOR, DIRECTOR6, PREFIX6, Rack, ask_datagrams, get, rack
from tests.serving import wait_for

pytestmark = [pytest.mark.ipvs, pytest.mark.boot]

VIP, VIP6 = "10.77.0.10", "fd00:77::10"
REQUESTS = 12


@pytest.fixture(scope="module")
def built() -> Iterator[Rack]:
    with rack(3) as made:
        for node in made.nodes:
            node.listen()
            node.carry("10.77.0.11")
            node.carry("10.77.0.12")
            node.unpack()
            node.carry("fd00:77::11")
            node.carry("fd00:77::12")
        yield made


def serve(built: Rack, **keys: object) -> ServiceConfig:
    """Set up the director for a service behind which all the nodes are."""
    settled = {"name": "www", "port": 80, "group": "web", "scheduler": "rr", **keys}
    config = ServiceConfig.model_validate(settled)
    places = [node.address6 if config.vip.version == 6 else node.address for node in built.nodes]
    reals = [Real.of(config, ip_address(place), 1) for place in places]
    entry = Entry(Virtual.of(config), {real.id: real for real in reals})

    def set_up() -> None:
        kernel, box = ipvs.Kernel(), director.Director()
        try:
            assert kernel.apply(plan({entry.virtual.key: entry}, kernel.table())) == []
            home = box.home(config)
            box.set(director.settings([config], [home]))
            box.put({config.vip: home})
        finally:
            kernel.close()
            box.close()

    built.in_director(set_up)
    return config


@pytest.mark.parametrize(
    ("keys", "near"),
    [
        ({"vip": VIP, "forward": "nat"}, False),
        ({"vip": "10.77.0.11", "forward": "dr"}, True),
        ({"vip": "10.77.0.12", "forward": "tun"}, True),
        ({"vip": VIP6, "forward": "nat", "node_prefix": f"{PREFIX6}/64"}, False),
        ({"vip": "fd00:77::11", "forward": "dr", "node_prefix": f"{PREFIX6}/64"}, True),
        ({"vip": "fd00:77::12", "forward": "tun", "node_prefix": f"{PREFIX6}/64"}, True),
    ],
    ids=["nat", "dr", "tun", "nat-ipv6", "dr-ipv6", "tun-ipv6"],
)
def test_requests_are_answered_in_turn(built: Rack, keys: dict[str, object], near: bool) -> None:
    config = serve(built, **keys)
    served = built.ask(built.near if near else built.far, str(config.vip), REQUESTS)
    assert Counter(served) == dict.fromkeys((1, 2, 3), REQUESTS // 3)


def test_clients_of_udp_are_answered_in_turn(built: Rack) -> None:
    serve(built, vip=VIP, port=53, real_port=5353, protocol="udp")
    for node in built.nodes:
        node.answer_datagrams(node.address, 5353)
    served = built.in_far(lambda: ask_datagrams(VIP, 53, REQUESTS, ports=True))
    assert Counter(served) == dict.fromkeys((1, 2, 3), REQUESTS // 3)
    assert len(set(built.in_far(lambda: ask_datagrams(VIP, 53, REQUESTS, ports=False)))) == 1


def test_with_one_packet_each_datagram_of_a_client_is_scheduled_by_itself(built: Rack) -> None:
    vip = "10.77.0.11"
    serve(built, vip=vip, port=514, protocol="udp", forward="dr", scheduler_flags=["one-packet"])
    for node in built.nodes:
        node.answer_datagrams(vip, 514)
    served = built.in_near(lambda: ask_datagrams(vip, 514, REQUESTS, ports=False))
    assert Counter(served) == dict.fromkeys((1, 2, 3), REQUESTS // 3)


def test_a_firewall_mark_makes_one_service_of_several_ports(built: Rack) -> None:
    mark = f"u32 match ip dst {VIP}/32 match ip dport 84 0xfffe action skbedit mark 7"
    for words in ("qdisc add dev eth1 ingress", f"filter add dev eth1 parent ffff: protocol ip {mark}"):
        built.in_director(lambda words=words: subprocess.run(("tc", *words.split()), check=True))  # type: ignore[misc]
    serve(built, vip=VIP, port=None, firewall_mark=7)
    for node in built.nodes:
        node.listen(84)
        node.listen(85)
    served = [number for port in (84, 85) * 3 for number in built.ask(built.far, VIP, 1, port)]
    assert Counter(served) == dict.fromkeys((1, 2, 3), 2)


def test_sctp_carries_http_too(built: Rack) -> None:
    serve(built, vip=VIP, port=86, protocol="sctp")
    for node in built.nodes:
        node.listen(86, socket.IPPROTO_SCTP)
    served = built.in_far(lambda: [get(VIP, 86, protocol=socket.IPPROTO_SCTP) for _ in range(REQUESTS)])
    assert Counter(served) == dict.fromkeys((1, 2, 3), REQUESTS // 3)


def test_nat_can_change_the_port(built: Rack) -> None:
    config = serve(built, vip=VIP, port=8080, real_port=80)
    assert sorted(built.ask(built.far, str(config.vip), 3, port=8080)) == [1, 2, 3]


def test_a_client_that_persists_has_one_server(built: Rack) -> None:
    config = serve(built, vip=VIP, port=81, real_port=80, persistence_seconds=60)
    assert len(set(built.ask(built.far, str(config.vip), 6, port=81))) == 1


def test_the_kernel_counts_what_passes(built: Rack) -> None:
    config = serve(built, vip=VIP, port=82, real_port=80)
    built.ask(built.far, VIP, 6, port=82)

    def count() -> Entry | None:
        kernel = ipvs.Kernel()
        try:
            found = next(item for key, item in kernel.table(traffic=True).items() if key.port == config.port)
        finally:
            kernel.close()
        return found if found.traffic.connections else None

    # The kernel sums up what its processors have counted every two seconds (ip_vs_est.c).
    entry = wait_for(lambda: built.in_director(count), 6)
    assert entry is not None
    assert entry.traffic.connections == 6
    assert entry.traffic.bytes_out > 6 * 50
    assert [item.connections for item in entry.traffic_of.values()] == [2, 2, 2]
    assert sum(item.all for item in entry.counts.values()) == 6


def test_the_virtual_address_is_put_once_and_taken_away(built: Rack) -> None:
    vip = ip_address("10.77.0.19")

    def there_and_back() -> tuple[bool, bool, bool]:
        box = director.Director()
        try:
            first = box.put({vip: "eth0"}) == [vip]
            again = box.put({vip: "eth0"}) == []
            box.take(vip, "eth0")
            box.take(vip, "eth0")
            return first, again, box.has(vip)
        finally:
            box.close()

    assert built.in_director(there_and_back) == (True, True, False)


@pytest.mark.parametrize(("vip", "node"), [("10.77.0.18", "10.77.0.101"), ("fd00:77::18", "fd00:77::101")])
def test_the_virtual_address_is_never_what_the_director_speaks_from(built: Rack, vip: str, node: str) -> None:
    """A node that has it too, for direct routing or tunnels, would drop checks and tunnelled packets."""

    def source() -> str:
        box = director.Director()
        try:
            box.put({ip_address(vip): "eth0"})
            family = socket.AF_INET6 if ":" in vip else socket.AF_INET
            with socket.socket(family, socket.SOCK_DGRAM) as speaker:
                speaker.connect((node, 9))
                return str(speaker.getsockname()[0])
        finally:
            box.take(ip_address(vip), "eth0")
            box.close()

    assert built.in_director(source) in (DIRECTOR, DIRECTOR6)


def test_a_request_without_a_service_is_refused(built: Rack) -> None:
    with pytest.raises(ConnectionRefusedError):
        built.in_director(lambda: get("10.77.0.1", 83))
