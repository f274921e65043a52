"""The kernel's table, really: what is written reads back, and other hands in it are put right."""

import subprocess
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from pxeboot.balancer import ipvs
from pxeboot.balancer.plan import Change, plan
from pxeboot.balancer.service import ServiceConfig
from pxeboot.balancer.table import Entry, Real, ServiceKey, Table, Virtual
from tests.balancer.rack import Rack, rack

pytestmark = [pytest.mark.ipvs, pytest.mark.boot]

SCHEDULERS = ("rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh")
VIP, VIP6 = "10.77.0.10", "fd00:77::10"


@pytest.fixture(scope="module")
def built() -> Iterator[Rack]:
    with rack(2) as made:
        yield made


@pytest.fixture
def clean(built: Rack) -> Iterator[Rack]:
    yield built
    built.in_director(lambda: _ipvsadm("-C"))


def _ipvsadm(*arguments: str) -> str:
    """An independent hand and eye."""
    done = subprocess.run(("ipvsadm", *arguments), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def entry(weights: list[int], **keys: object) -> Entry:
    """A service of the configuration with so many servers."""
    config = ServiceConfig.model_validate({"name": "www", "vip": VIP, "port": 80, "group": "web", **keys})
    start = "fd00:77::1:" if config.vip.version == 6 else "10.77.0.10"
    reals = [Real.of(config, ip_address(f"{start}{n + 1}"), weight) for n, weight in enumerate(weights)]
    return Entry(Virtual.of(config), {real.id: real for real in reals})


def converge(wanted: Table, ours: tuple[ServiceKey, ...] = ()) -> list[Change]:
    """Make it true, and see that the second time changes nothing. In the director's namespace."""
    kernel = ipvs.Kernel()
    try:
        changes = plan(wanted, kernel.table(), ours)
        assert kernel.apply(changes) == []
        assert plan(wanted, kernel.table(), ours) == []
        return changes
    finally:
        kernel.close()


def table(*entries: Entry) -> Table:
    return {item.virtual.key: item for item in entries}


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_every_scheduler_can_be_set(clean: Rack, scheduler: str) -> None:
    clean.in_director(lambda: converge(table(entry([1, 2], scheduler=scheduler))))
    assert f"TCP  {VIP}:80 {scheduler}" in clean.in_director(lambda: _ipvsadm("-L", "-n"))


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"scheduler": "sh", "scheduler_flags": ["fallback"]}, "sh (sh-fallback)"),
        ({"scheduler": "mh", "scheduler_flags": ["port", "fallback"]}, "mh (mh-fallback,mh-port)"),
        ({"protocol": "udp", "scheduler_flags": ["one-packet"]}, f"UDP  {VIP}:80 wlc ops"),
        ({"protocol": "sctp"}, f"SCTP {VIP}:80 wlc"),
        ({"persistence_seconds": 300}, "persistent 300"),
        ({"persistence_seconds": 300, "persistence_prefix": 24}, "persistent 300 mask 255.255.255.0"),
        ({"port": None, "firewall_mark": 7}, "FWM  7 wlc"),
        ({"port": 0, "persistence_seconds": 60}, f"{VIP}:0 wlc persistent 60"),
        ({"forward": "dr"}, "Route   1"),
        ({"forward": "tun"}, "Tunnel  1"),
        ({"real_port": 8080}, "10.77.0.101:8080             Masq    1"),
    ],
)
def test_ipvsadm_reads_what_we_write(clean: Rack, keys: dict[str, object], words: str) -> None:
    clean.in_director(lambda: converge(table(entry([1], **keys))))
    assert words in clean.in_director(lambda: _ipvsadm("-L", "-n"))


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({}, f"TCP  [{VIP6}]:80 wlc"),
        ({"persistence_seconds": 60, "persistence_prefix": 64}, "persistent 60 mask 64"),
        ({"port": None, "firewall_mark": 7}, "FWM  7 IPv6 wlc"),
        ({"scheduler": "mh", "forward": "dr"}, "[fd00:77::1:1]:80            Route   1"),
    ],
)
def test_ipvsadm_reads_our_ipv6_services(clean: Rack, keys: dict[str, object], words: str) -> None:
    made = entry([1], vip=VIP6, node_prefix="fd00:77::/64", **keys)
    clean.in_director(lambda: converge(table(made)))
    assert words in clean.in_director(lambda: _ipvsadm("-L", "-n"))


def test_thresholds_are_set(clean: Rack) -> None:
    made = table(entry([1], max_connections=100, min_connections=50))
    clean.in_director(lambda: converge(made))
    assert "100        50" in clean.in_director(lambda: _ipvsadm("-L", "-n", "--thresholds"))


def test_another_hand_is_put_right_and_other_services_are_left_alone(clean: Rack) -> None:
    wanted = table(entry([5, 5]), entry([1], port=443))

    def meddle() -> list[Change]:
        converge(wanted)
        _ipvsadm("-e", "-t", f"{VIP}:80", "-r", "10.77.0.101", "-m", "-w", "0")
        _ipvsadm("-d", "-t", f"{VIP}:80", "-r", "10.77.0.102")
        _ipvsadm("-a", "-t", f"{VIP}:80", "-r", "10.77.0.66", "-g")
        _ipvsadm("-E", "-t", f"{VIP}:80", "-s", "rr", "-p", "60")
        _ipvsadm("-D", "-t", f"{VIP}:443")
        _ipvsadm("-A", "-t", "10.77.0.1:8080", "-s", "rr")
        return converge(wanted)

    changes = clean.in_director(meddle)
    assert len(changes) == 6
    seen = clean.in_director(lambda: _ipvsadm("-S", "-n"))
    assert "-A -t 10.77.0.1:8080 -s rr" in seen
    assert f"-a -t {VIP}:80 -r 10.77.0.102:80 -m -w 5" in seen


def test_a_refused_change_is_told_and_the_others_are_made(clean: Rack) -> None:
    def attempt() -> tuple[list[tuple[Change, str]], Table]:
        kernel = ipvs.Kernel()
        try:
            wanted = table(entry([1]), entry([1], port=81))
            kernel.apply(plan(wanted, {}))
            return kernel.apply(
                [*plan(table(entry([1])), {}), *plan(table(entry([1], port=82)), {})]
            ), kernel.table()
        finally:
            kernel.close()

    refused, after = clean.in_director(attempt)
    assert [(change.real is None, reason) for change, reason in refused] == [
        (True, "File exists"),
        (False, "File exists"),
    ]
    assert {key.port for key in after} == {80, 81, 82}
