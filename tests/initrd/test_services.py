"""`initrd/services.sh` on a node made of a namespace, with a neighbour that asks by ARP."""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pyroute2 import IPRoute, netns

from pxeboot.lab import network
from tests.lab.conditions import needs_network

from .shell import call

pytestmark = [pytest.mark.net, needs_network]

FILES = ("report.sh", "services.sh")
OWN, VIP, NEIGHBOUR = "10.0.0.5", "10.0.0.9", "10.0.0.1"


@dataclass
class Node:
    """A namespace with eth0, its cable's other end in another namespace, and a /run/pxeboot."""

    name: str
    neighbour: str
    run: Path

    def sh(self, script: str, *arguments: str) -> tuple[int, str]:
        """Run shell text of the node's: its status, and what it printed."""
        done = network.in_namespace(self.name, lambda: call(self.run, FILES, script, *arguments))
        assert not done.stderr, done.stderr
        return done.returncode, done.stdout.decode()

    def equip(self, wanted: str) -> str:
        """Set up what is wanted; what the agent then reports."""
        status, _ = self.sh('equip "$1"', wanted)
        assert status == 0
        return self.sh("equipment")[1]

    def addresses(self, interface: str) -> set[str]:
        _, shown = self.sh("ip -o addr show dev \"$1\" | awk '{ print $4 }'", interface)
        return set(shown.split())

    def setting(self, name: str) -> str:
        return self.sh(f"cat /proc/sys/net/{name}")[1].strip()

    def is_answered(self, address: str) -> bool:
        """Whether the neighbour has an answer by ARP for an address."""
        ask = ["busybox", "arping", "-q", "-f", "-c", "1", "-w", "1", "-I", "eth0", address]
        return network.in_namespace(self.neighbour, lambda: subprocess.run(ask, check=False)).returncode == 0


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(f"node-{os.getpid()}", f"neighbour-{os.getpid()}", tmp_path)
    (tmp_path / "network").write_text(f"interface=eth0\naddress={OWN}/24\nrouter=\ndns=\n")
    try:
        for name in (made.name, made.neighbour):
            netns.create(name)
        network.in_namespace(made.name, lambda: plug(OWN, made.neighbour))
        network.in_namespace(made.neighbour, lambda: plug(NEIGHBOUR, None))
        yield made
    finally:
        for name in (made.name, made.neighbour):
            network.delete(name)


def plug(address: str, peer_namespace: str | None) -> None:
    with IPRoute() as links:
        if peer_namespace is not None:
            links.link(
                "add", ifname="eth0", kind="veth", peer={"ifname": "eth0", "net_ns_fd": peer_namespace}
            )
        for name in ("lo", "eth0"):
            index = links.link_lookup(ifname=name)[0]
            links.link("set", index=index, state="up")
        links.addr("add", index=index, address=address, prefixlen=24)


def test_direct_routing_has_the_virtual_address_without_a_word_to_the_neighbours(node: Node) -> None:
    assert node.equip(f"dr {VIP}") == f"dr {VIP}"
    assert f"{VIP}/32" in node.addresses("lo")
    assert [node.setting(f"ipv4/conf/{name}/arp_ignore") for name in ("all", "eth0")] == ["1", "1"]
    assert [node.setting(f"ipv4/conf/{name}/arp_announce") for name in ("all", "eth0")] == ["2", "2"]
    assert node.is_answered(OWN)
    assert not node.is_answered(VIP)


def test_an_address_without_these_settings_would_be_answered_for(node: Node) -> None:
    node.sh(f"ip addr add {VIP}/32 dev lo")
    assert node.is_answered(VIP)


def test_what_is_no_longer_wanted_is_undone(node: Node) -> None:
    node.equip(f"dr {VIP},dr 10.0.0.10")
    assert node.equip(f"dr {VIP}") == f"dr {VIP}"
    assert node.addresses("lo") >= {f"{VIP}/32"}
    assert "10.0.0.10/32" not in node.addresses("lo")
    assert node.setting("ipv4/conf/all/arp_ignore") == "1"
    assert node.equip("") == ""
    assert f"{VIP}/32" not in node.addresses("lo")
    assert [node.setting(f"ipv4/conf/all/{name}") for name in ("arp_ignore", "arp_announce")] == ["0", "0"]


def test_settings_go_back_to_what_the_operator_had(node: Node) -> None:
    node.sh("echo 2 >/proc/sys/net/ipv4/conf/eth0/arp_ignore")
    node.equip(f"dr {VIP}")
    node.equip(f"dr {VIP}")
    node.equip("")
    assert node.setting("ipv4/conf/eth0/arp_ignore") == "2"


def test_doing_it_twice_is_doing_it_once(node: Node) -> None:
    wanted = f"address fd00:77::5054:ff:fe77:1/64,dr {VIP},dr fd00::9,gateway fd00:77::1"
    for _ in range(2):
        assert node.equip(wanted) == wanted
    assert "fd00:77::5054:ff:fe77:1/64" in node.addresses("eth0")
    assert "fd00::9/128" in node.addresses("lo")
    assert "default via fd00:77::1 dev eth0" in node.sh("ip -6 route")[1]
    assert node.equip("") == ""
    assert not {entry for entry in node.addresses("eth0") | node.addresses("lo") if entry.startswith("fd")}
    assert "default" not in node.sh("ip -6 route")[1]


def test_a_node_killed_in_the_middle_undoes_what_it_had_begun(node: Node) -> None:
    node.sh('set_entry() { kill -9 $$; }; equip "$1"', "dr 10.0.0.10")
    node.sh("ip addr add 10.0.0.10/32 dev lo")  # as if it had come one step further
    assert node.equip("") == ""
    assert "10.0.0.10/32" not in node.addresses("lo")


def test_what_cannot_be_set_up_is_named_and_the_rest_is(node: Node) -> None:
    status, said = node.sh('equip "$1" || echo "$equip_failed"', f"dance 1,dr {VIP},sing 2")
    assert (status, said) == (0, "dance 1, sing 2\n")
    assert node.sh("equipment")[1] == f"dr {VIP}"
