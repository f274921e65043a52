"""Addresses that somebody has already: found by real ARP in namespaces, kept from others, and shown."""

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pyroute2 import IPRoute, netns

from pxeboot.lab import network
from tests.lab.conditions import needs_network
from tests.serving import CLIENT, CONFIG, Served, served, wait_for

pytestmark = [pytest.mark.net, needs_network]

SQUATTER = "52:54:00:00:00:99"
QUARANTINE = "52:54:00:00:00:99: has 10.77.0.100"
UDHCPC_SCRIPT = '#!/bin/sh\n[ "$1" != bound ] || echo "$ip"\n'

Squat = Callable[[Served, str], None]


@pytest.fixture
def squat() -> Iterator[Squat]:
    """Puts a machine with an address of its own on the client's cable: a macvlan in a third namespace."""
    namespace = f"pxeboot-q{os.getpid()}"
    netns.create(namespace)

    def put(server: Served, address: str) -> None:
        def plug() -> None:
            with IPRoute() as links:
                cable = links.link_lookup(ifname=CLIENT)[0]
                links.link(
                    "add", ifname="own", kind="macvlan", macvlan_mode="bridge", link=cable,
                    address=SQUATTER, net_ns_fd=namespace,
                )  # fmt: skip

        def configure() -> None:
            with IPRoute() as links:
                index = links.link_lookup(ifname="own")[0]
                links.link("set", index=index, state="up")
                links.addr("add", index=index, address=address, prefixlen=24)

        server.cable.in_client(plug)
        network.in_namespace(namespace, configure)

    try:
        yield put
    finally:
        network.delete(namespace)


def lease(server: Served, *options: str) -> tuple[str, float]:
    """One lease through busybox's client: the address, and how many seconds it took."""
    script = server.state_dir / "udhcpc"
    script.write_text(UDHCPC_SCRIPT)
    script.chmod(0o755)
    started = time.monotonic()
    got = server.cable.run(
        "busybox", "udhcpc", "-i", CLIENT, "-f", "-q", "-n", "-t", "5", "-T", "1", "-s", str(script), *options
    )
    return got.stdout.strip(), time.monotonic() - started


def restarted(server: Served, text: str) -> None:
    """The server again, with another configuration and the squatter's cable left alone."""
    server.stop()
    server.config.write_text(text.replace("STATE", str(server.state_dir)))
    server.start()


def quarantined(server: Served) -> list[tuple[str, str, str]]:
    told = server.ask("GET", "/status")["quarantined"]
    return [(item["address"], item["mac"], item["state"]) for item in told]


def test_an_address_that_somebody_has_is_found_ahead_of_need_and_shown(tmp_path: Path, squat: Squat) -> None:
    with served(tmp_path) as server:
        server.stop()
        squat(server, "10.77.0.100")
        server.start()
        wait_for(lambda: quarantined(server) == [("10.77.0.100", SQUATTER, "conflict")], 5)
        time.sleep(1)  # the rest of the stock: silence shows that it is free
        address, seconds = lease(server)
        assert address == "10.77.0.101"
        assert seconds < 0.4  # from the stock: no probe to wait for
        assert f"WARNING {QUARANTINE}, which is in our pool" in server.log
        shown = server.cli("status")
        assert f"10.77.0.100 is in use by {SQUATTER} without a lease: not given for 60 min" in shown.stdout
        assert json.loads(server.cli("status", "--json").stdout)["quarantined"][0]["mac"] == SQUATTER
        restarted(server, CONFIG)
        assert quarantined(server) == [("10.77.0.100", SQUATTER, "conflict")]  # it was on disk


def test_an_address_asked_for_is_probed_while_its_machine_waits(tmp_path: Path, squat: Squat) -> None:
    with served(tmp_path) as server:
        wait_for(lambda: lease(server)[0] == "10.77.0.100", 5)
        squat(server, "10.77.0.50")
        server.cli("node", "set", "52:54:00:00:00:77", "--address", "10.77.0.50")
        address, seconds = lease(server)
        assert address == "10.77.0.100"  # its own again: the reserved one is in use
        assert seconds < 0.4  # the squatter answered at once
        assert quarantined(server) == [("10.77.0.50", SQUATTER, "conflict")]
        server.cli("node", "set", "52:54:00:00:00:77", "--address", "10.77.0.51")
        address, seconds = lease(server)
        assert address == "10.77.0.51"
        assert 0.4 <= seconds < 1  # nobody has it, which only silence shows


def test_a_machine_with_its_address_in_use_by_itself_keeps_it(tmp_path: Path) -> None:
    with served(tmp_path) as server:
        assert lease(server)[0] == "10.77.0.100"

        def add() -> None:
            with IPRoute() as links:
                index = links.link_lookup(ifname=CLIENT)[0]
                links.addr("add", index=index, address="10.77.0.60", prefixlen=24)

        server.cable.in_client(add)
        server.cli("node", "set", "52:54:00:00:00:77", "--address", "10.77.0.60")
        assert lease(server)[0] == "10.77.0.60"
        assert quarantined(server) == []


def test_nothing_is_probed_where_that_is_switched_off(tmp_path: Path, squat: Squat) -> None:
    off = CONFIG.replace("lease_seconds = 60", "lease_seconds = 60\nprobe_conflicts = false")
    with served(tmp_path, off) as server:
        squat(server, "10.77.0.100")
        assert lease(server)[0] == "10.77.0.100"
        assert quarantined(server) == []
