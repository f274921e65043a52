"""Every way of forwarding carries real HTTP through the virtual address, to several machines."""

from collections import Counter
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from pxeboot.balancer import director, ipvs
from pxeboot.balancer.plan import plan
from pxeboot.balancer.service import ServiceConfig
from pxeboot.balancer.table import Entry, Real, Virtual
from tests.balancer.rack import PREFIX6, Rack, get, rack
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
    ],
    ids=["nat", "dr", "tun", "nat-ipv6", "dr-ipv6"],
)
def test_requests_are_answered_in_turn(built: Rack, keys: dict[str, object], near: bool) -> None:
    config = serve(built, **keys)
    served = built.ask(built.near if near else built.far, str(config.vip), REQUESTS)
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


def test_a_request_without_a_service_is_refused(built: Rack) -> None:
    with pytest.raises(ConnectionRefusedError):
        built.in_director(lambda: get("10.77.0.1", 83))
