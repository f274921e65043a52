"""Addresses that somebody has already: found by real ARP in namespaces, kept from others, and shown."""

import json
import time
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from tests.lab.conditions import needs_network
from tests.neighbour import NEIGHBOUR, neighbour
from tests.serving import CLIENT, CONFIG, MAC, Served, served, wait_for

pytestmark = [pytest.mark.net, needs_network]

UDHCPC_SCRIPT = '#!/bin/sh\n[ "$1" != bound ] || echo "$ip"\n'


def lease(server: Served) -> tuple[str, float]:
    """One lease through busybox's client: the address, and how many seconds it took."""
    script = server.state_dir / "udhcpc"
    script.write_text(UDHCPC_SCRIPT)
    script.chmod(0o755)
    started = time.monotonic()
    got = server.cable.run(
        "busybox", "udhcpc", "-i", CLIENT, "-f", "-q", "-n", "-t", "5", "-T", "1", "-s", str(script)
    )
    return got.stdout.strip(), time.monotonic() - started


def quarantined(server: Served) -> list[tuple[str, str, str]]:
    told = server.ask("GET", "/status")["quarantined"]
    return [(item["address"], item["mac"], item["state"]) for item in told]


def test_an_address_that_somebody_has_is_found_ahead_of_need_and_shown(tmp_path: Path) -> None:
    found = [("10.77.0.100", NEIGHBOUR, "conflict")]
    many = CONFIG.replace("10.77.0.0/24", "10.77.0.0/20").replace("10.77.0.249", "10.77.15.249")
    with served(tmp_path, many) as server:  # more addresses than the stock holds
        server.stop()
        with neighbour(server.cable, "10.77.0.100"):
            server.start()
            wait_for(lambda: quarantined(server) == found, 5)
            time.sleep(1)  # the rest of the stock: silence shows that it is free
            assert lease(server)[0] == "10.77.0.101"  # from the stock, whose first it is
        assert f"WARNING {NEIGHBOUR}: has 10.77.0.100, which is in our pool" in server.log
        shown = server.cli("status").stdout
        assert f"10.77.0.100 is in use by {NEIGHBOUR} without a lease: not given for 60 min" in shown
        assert json.loads(server.cli("status", "--json").stdout)["quarantined"][0]["mac"] == NEIGHBOUR
        server.stop()
        server.start()
        assert quarantined(server) == found  # it was on disk
        assert "pxeboot lease free 10.77.0.100" in shown
        assert "conflict" in server.cli("lease", "list").stdout
        freed = server.cli("lease", "free", "10.77.0.100")
        assert (freed.returncode, freed.stdout) == (0, "10.77.0.100 is given again\n")
        assert quarantined(server) == []
        assert server.cli("lease", "free", "10.77.0.101").stderr.startswith("error: 10.77.0.101 is leased to")


def test_an_address_asked_for_is_probed_while_its_machine_waits(tmp_path: Path) -> None:
    with served(tmp_path) as server, neighbour(server.cable, "10.77.0.50"):
        assert lease(server)[0] == "10.77.0.100"
        server.cli("node", "set", MAC, "--address", "10.77.0.50")
        assert lease(server)[0] == "10.77.0.100"  # its own again: the reserved one is in use
        assert quarantined(server) == [("10.77.0.50", NEIGHBOUR, "conflict")]
        server.cli("node", "set", MAC, "--address", "10.77.0.51")
        address, seconds = lease(server)
        assert address == "10.77.0.51"
        assert seconds >= 0.4  # nobody has it, which only silence shows


def test_a_machine_that_has_the_address_it_is_to_get_is_no_conflict(tmp_path: Path) -> None:
    def add() -> None:
        with IPRoute() as links:
            index = links.link_lookup(ifname=CLIENT)[0]
            links.addr("add", index=index, address="10.77.0.60", prefixlen=24)

    with served(tmp_path) as server:
        assert lease(server)[0] == "10.77.0.100"
        server.cable.in_client(add)
        server.cli("node", "set", MAC, "--address", "10.77.0.60")
        assert lease(server)[0] == "10.77.0.60"
        assert quarantined(server) == []


def test_nothing_is_probed_where_that_is_switched_off(tmp_path: Path) -> None:
    off = CONFIG.replace("lease_seconds = 60", "lease_seconds = 60\nprobe_conflicts = false")
    with served(tmp_path, off) as server, neighbour(server.cable, "10.77.0.100"):
        assert lease(server)[0] == "10.77.0.100"
        assert quarantined(server) == []
