"""Real DHCP clients, straight and through real relays: they get, renew, rebind and release their lease."""

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from pyroute2 import IPRoute, netns
from pyroute2.netlink.rtnl import ndmsg

from pxeboot.dhcp import packet
from pxeboot.dhcp.options import MessageType
from pxeboot.dhcp.packet import Packet
from pxeboot.errors import MalformedPacket
from pxeboot.lab import network
from tests.lab.conditions import needs_network
from tests.serving import CLIENT, CONFIG, MAC, SERVER, Served, served, wait_for

pytestmark = [pytest.mark.net, needs_network]

ADDRESS = "10.77.0.100"
EVERYBODY = "255.255.255.255"
RELAY, RELAYED, BEHIND = "10.77.0.2", "10.88.0.100", "relay0"
RELAYED_NETWORK = """
[[network]]
subnet = "10.88.0.0/24"
pool = ["10.88.0.100-10.88.0.199"]
router = "10.88.0.1"
lease_seconds = 300
"""

UDHCPC_COMMAND = ("busybox", "udhcpc", "-i", CLIENT, "-f", "-t", "9", "-T", "1")
UDHCPC = """#!/bin/sh
case $1 in
    deconfig) busybox ip -4 address flush dev $interface; busybox ip link set $interface up ;;
    bound|renew)
        busybox ip -4 address replace $ip/$mask dev $interface
        echo "$1 $ip lease=$lease ntp=$ntpsrv search=$search" ;;
esac
"""
DHCLIENT = """#!/bin/sh
case $reason in
    BOUND|RENEW|REBIND|REBOOT)
        busybox ip -4 address replace $new_ip_address/24 dev $interface
        echo $reason ;;
    PREINIT) busybox ip link set $interface up ;;
    RELEASE|EXPIRE|STOP) busybox ip -4 address flush dev $interface ;;
esac
"""


@dataclass
class Wire:
    """What is heard on an interface: kind of message, where it goes to, and the packet."""

    heard: list[tuple[MessageType, str, Packet]] = field(default_factory=list)

    def saw(self, kind: MessageType, destination: str | None = None, **fields: Any) -> bool:
        return any(
            kind is told
            and destination in (None, goes)
            and all(getattr(item, name) == value for name, value in fields.items())
            for told, goes, item in list(self.heard)
        )

    def count(self, kind: MessageType) -> int:
        return sum(told is kind for told, _, _ in list(self.heard))

    def take(self, datagram: bytes) -> None:
        """Keep an IPv4 datagram that is DHCP from a client or to one."""
        start = (datagram[0] & 15) * 4
        ports = {int.from_bytes(datagram[at : at + 2], "big") for at in (start, start + 2)}
        if datagram[9] != socket.IPPROTO_UDP or not ports & {67, 68}:
            return
        try:
            found = packet.decode(datagram[start + 8 :])
            self.heard.append((found.message_type, socket.inet_ntoa(datagram[16:20]), found))
        except MalformedPacket:
            return


@contextmanager
def listening(namespace: str, interface: str) -> Iterator[Wire]:
    """Hear all DHCP on an interface of a namespace while the block runs."""

    def open_wire() -> socket.socket:
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))  # ETH_P_ALL
        tap.bind((interface, 3))
        tap.settimeout(0.1)
        return tap

    wire, ended = Wire(), threading.Event()
    tap = network.in_namespace(namespace, open_wire)

    def listen() -> None:
        while not ended.is_set():
            try:
                data, (_, protocol, *_) = tap.recvfrom(65535)
            except TimeoutError:
                continue
            if protocol == 0x0800 and len(data) > 28:
                wire.take(data)

    thread = threading.Thread(target=listen)
    thread.start()
    try:
        yield wire
    finally:
        ended.set()
        thread.join()
        tap.close()


@contextmanager
def running(namespace: str, *command: str, log: Path, **env: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A program in a namespace, in the foreground, ended with the block."""
    with log.open("ab") as file:
        process = network.in_namespace(
            namespace,
            lambda: subprocess.Popen(
                command, stdout=file, stderr=file, stdin=subprocess.DEVNULL, env=os.environ | env
            ),
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    text = CONFIG.replace(
        "lease_seconds = 60",
        'lease_seconds = 300\noptions = { ntp-servers = ["10.77.0.3"], domain-search = ["a.example", "b"] }',
    )
    with served(tmp_path, text + RELAYED_NETWORK) as started:
        yield started


def script(server: Served, text: str) -> str:
    path = server.state_dir / "script"
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def state_of(server: Served, address: str = ADDRESS) -> str:
    leases = server.ask("GET", "/leases")["leases"]
    return next((str(lease["state"]) for lease in leases if lease["address"] == address), "none")


def cut_off(server: Served) -> None:
    """From now on what the client sends to the server's address goes astray; broadcasts do not, so that a
    renewal becomes a rebinding."""

    def add() -> None:
        with IPRoute() as links:
            astray = {"lladdr": "02:00:00:00:00:01", "state": ndmsg.states["permanent"]}
            links.neigh("replace", dst=SERVER, ifindex=links.link_lookup(ifname=CLIENT)[0], **astray)

    server.cable.in_client(add)


MINE = IPv4Address(ADDRESS)


def test_udhcpc_gets_renews_rebinds_and_releases(server: Served) -> None:
    namespace, log = server.cable.client, server.state_dir / "client"
    command = (*UDHCPC_COMMAND, "-O", "ntpsrv", "-O", "search", "-s", script(server, UDHCPC))
    with listening(namespace, CLIENT) as wire, running(namespace, *command, log=log) as client:
        wait_for(lambda: f"bound {ADDRESS} lease=300 ntp=10.77.0.3 search=a.example b" in log.read_text(), 10)
        client.send_signal(signal.SIGUSR1)
        wait_for(lambda: f"renew {ADDRESS}" in log.read_text(), 10)
        assert wire.saw(MessageType.REQUEST, SERVER, ciaddr=MINE)
        assert wire.saw(MessageType.ACK, ADDRESS)
        cut_off(server)
        client.send_signal(signal.SIGUSR1)
        wait_for(lambda: wire.saw(MessageType.REQUEST, EVERYBODY, ciaddr=MINE), 20)
        wait_for(lambda: wire.count(MessageType.ACK) == 3, 5)


def test_udhcpc_releases(server: Served) -> None:
    namespace, log = server.cable.client, server.state_dir / "client"
    command = (*UDHCPC_COMMAND, "-s", script(server, UDHCPC))
    with running(namespace, *command, log=log) as client:
        wait_for(lambda: f"bound {ADDRESS}" in log.read_text(), 10)
        client.send_signal(signal.SIGUSR2)
        wait_for(lambda: state_of(server) == "released", 10)


def test_dhclient_renews_and_rebinds(server: Served) -> None:
    namespace, log = server.cable.client, server.state_dir / "client"
    config = server.state_dir / "dhclient.conf"
    config.write_text(
        "supersede dhcp-renewal-time 2; supersede dhcp-rebinding-time 4;"
        "request subnet-mask, routers, ntp-servers, domain-search;"
    )
    command = ("dhclient", "-d", "-1", "-cf", str(config), "-sf", script(server, DHCLIENT), "-lf",
               str(server.state_dir / "leases"), "-pf", str(server.state_dir / "pid"), CLIENT)  # fmt: skip
    with listening(namespace, CLIENT) as wire, running(namespace, *command, log=log):
        wait_for(lambda: wire.saw(MessageType.REQUEST, SERVER, ciaddr=MINE), 15)
        wait_for(lambda: "RENEW" in log.read_text(), 5)
        cut_off(server)
        wait_for(lambda: wire.saw(MessageType.REQUEST, EVERYBODY, ciaddr=MINE), 15)
        wait_for(lambda: log.read_text().count(f"DHCPACK of {ADDRESS}") == 3, 5)
    told = (server.state_dir / "leases").read_text()
    assert "option ntp-servers 10.77.0.3;" in told
    assert 'option domain-search "a.example.", "b.";' in told


def test_dhcpcd_gets_renews_rebinds_and_releases(server: Served) -> None:
    namespace, log = server.cable.client, server.state_dir / "client"
    config = server.state_dir / "dhcpcd.conf"
    config.write_text("option ntp_servers\noption domain_search\nnoarp\nnoipv4ll\n")
    # It keeps its lease and its socket at fixed places: a mount namespace hides them from other tests.
    places = "mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /var/lib/dhcpcd"
    dhcpcd = f"exec dhcpcd -4 -B -d -f {config} -c {script(server, '#!/bin/sh')} {CLIENT}"
    command = ("unshare", "-m", "sh", "-c", f"{places} && {dhcpcd}")

    def settled(reason: str) -> int:
        """How often it has told its script of that, its last act before it listens for signals again."""
        return sum(line.startswith(f"{CLIENT}: executing:") and line.endswith(reason) for line in
                   log.read_text().splitlines())  # fmt: skip

    with listening(namespace, CLIENT) as wire, running(namespace, *command, log=log) as client:
        wait_for(lambda: settled("BOUND") == 1, 20)
        client.send_signal(signal.SIGUSR1)
        wait_for(lambda: settled("RENEW") == 1, 20)
        assert wire.saw(MessageType.REQUEST, SERVER, ciaddr=MINE)
        client.send_signal(signal.SIGHUP)
        wait_for(lambda: settled("RENEW") == 2, 20)
        assert wire.saw(MessageType.REQUEST, EVERYBODY, ciaddr=MINE)
        client.send_signal(signal.SIGALRM)
        wait_for(lambda: state_of(server) == "released", 20)


def test_systemd_networkd_gets_renews_and_releases(server: Served) -> None:
    server.config.write_text(
        server.config.read_text().replace("lease_seconds = 300", "lease_seconds = 60", 1)
    )
    server.processes[-1].send_signal(signal.SIGHUP)
    namespace, log = server.cable.client, server.state_dir / "client"
    settings = f"[Match]\nName={CLIENT}\n[Network]\nDHCP=ipv4\nLinkLocalAddressing=no\n"
    (server.state_dir / "eth0.network").write_text(settings)
    # Without PID 1 and D-Bus it runs as it is; with /sys read-only it does not wait for udev.
    places = (
        "mount -t tmpfs tmpfs /run && mount -t sysfs -o ro sysfs /sys && mkdir -p /run/systemd/network"
        f" && cp {server.state_dir}/eth0.network /run/systemd/network"
    )
    command = ("unshare", "-m", "sh", "-c", f"{places} && exec /lib/systemd/systemd-networkd")
    with (
        listening(namespace, CLIENT) as wire,
        running(namespace, *command, log=log, SYSTEMD_LOG_TARGET="console"),
    ):
        wait_for(lambda: f"DHCPv4 address {ADDRESS}/24, gateway {SERVER} acquired" in log.read_text(), 15)
        # Nothing makes it renew but time: half of the shortest lease.
        wait_for(lambda: wire.saw(MessageType.REQUEST, SERVER, ciaddr=MINE), 35)
        wait_for(lambda: wire.count(MessageType.ACK) == 2, 5)
    wait_for(lambda: state_of(server) == "released", 5)


def test_a_machine_is_held_until_it_is_named_and_then_sent_for_a_lease_of_its_own(server: Served) -> None:
    server.config.write_text(server.config.read_text().replace("[server]", '[server]\nunknown = "hold"'))
    server.processes[-1].send_signal(signal.SIGHUP)
    wait_for(lambda: "has been reread" in server.log, 5)
    namespace, log = server.cable.client, server.state_dir / "client"
    command = (*UDHCPC_COMMAND, "-A", "1", "-s", script(server, UDHCPC))
    with listening(namespace, CLIENT) as wire, running(namespace, *command, log=log) as client:
        wait_for(lambda: f"bound {ADDRESS} lease=60" in log.read_text(), 10)
        wait_for(lambda: "discovered" in server.cli("node", "list").stdout, 5)
        assert server.cli("node", "set", MAC, "--name", "web7", "--address", "10.77.0.7").returncode == 0
        client.send_signal(signal.SIGUSR1)
        wait_for(lambda: "bound 10.77.0.7 lease=300" in log.read_text(), 15)
        assert wire.saw(MessageType.NAK, EVERYBODY)
    assert "discovered" not in server.cli("node", "list").stdout


@contextmanager
def behind_a_relay(server: Served) -> Iterator[str]:
    """A namespace for a client; the far end of the first cable becomes the host of a relay between them."""
    name = f"pxeboot-e{os.getpid()}"

    def lay() -> None:
        with IPRoute() as links:
            links.addr("add", index=links.link_lookup(ifname=CLIENT)[0], address=RELAY, prefixlen=24)
            links.link("add", ifname=BEHIND, kind="veth", peer={"ifname": CLIENT, "net_ns_fd": name})
            index = links.link_lookup(ifname=BEHIND)[0]
            links.addr("add", index=index, address="10.88.0.1", prefixlen=24)
            links.link("set", index=index, state="up")
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")

    def route() -> None:
        with IPRoute() as links:
            links.route("add", dst="10.88.0.0/24", gateway=RELAY)

    def up() -> None:
        with IPRoute() as links:
            links.link("set", index=links.link_lookup(ifname=CLIENT)[0], state="up")

    netns.create(name)
    try:
        server.cable.in_client(lay)
        server.cable.in_server(route)
        network.in_namespace(name, up)
        yield name
    finally:
        network.delete(name)


DHCRELAY = ("dhcrelay", "-4", "-d", "--no-pid", "-id", BEHIND, "-iu", CLIENT)
DNSMASQ = ("dnsmasq", "-k", "-p", "0", "-C", "/dev/null", "-x", "", "-8", "-")
RELAYS = {
    "dhcrelay": (*DHCRELAY, SERVER),
    "dhcrelay with option 82": (*DHCRELAY, "-a", SERVER),
    "dnsmasq": (*DNSMASQ, f"--dhcp-relay=10.88.0.1,{SERVER}"),
}


@pytest.mark.parametrize("relay", RELAYS)
def test_a_client_behind_a_real_relay_gets_and_renews_its_lease(server: Served, relay: str) -> None:
    log = server.state_dir / "client"
    command = (*UDHCPC_COMMAND, "-s", script(server, UDHCPC))
    with (
        behind_a_relay(server) as namespace,
        running(server.cable.client, *RELAYS[relay], log=server.state_dir / "relay"),
        listening(server.cable.client, CLIENT) as wire,
        running(namespace, *command, log=log) as client,
    ):
        wait_for(lambda: f"bound {RELAYED}" in log.read_text(), 15)
        assert wire.saw(MessageType.ACK, "10.88.0.1", giaddr=IPv4Address("10.88.0.1"))
        assert relay != "dhcrelay with option 82" or any(82 in item.options for _, _, item in wire.heard)

        def route() -> None:
            with IPRoute() as links:
                links.route("add", dst="default", gateway="10.88.0.1")

        network.in_namespace(namespace, route)
        client.send_signal(signal.SIGUSR1)
        wait_for(lambda: f"renew {RELAYED}" in log.read_text(), 10)
        assert wire.saw(MessageType.REQUEST, SERVER, ciaddr=IPv4Address(RELAYED), giaddr=IPv4Address(0))
        client.send_signal(signal.SIGUSR2)
        wait_for(lambda: state_of(server, RELAYED) == "released", 10)
