"""Real DHCP clients: they get, renew, rebind and release their lease."""

import signal
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from pyroute2 import IPRoute
from pyroute2.netlink.rtnl import ndmsg

from pxeboot.dhcp.options import MessageType
from tests.lab.conditions import needs_network
from tests.serving import CLIENT, CONFIG, INTERFACE, MAC, SERVER, Served, served, wait_for
from tests.wire import listening, running

pytestmark = [pytest.mark.net, needs_network]

ADDRESS = "10.77.0.100"
EVERYBODY = "255.255.255.255"

UDHCPC_COMMAND = ("busybox", "udhcpc", "-i", CLIENT, "-f", "-t", "9", "-T", "1")
UDHCPC = """#!/bin/sh
case $1 in
    deconfig) busybox ip -4 address flush dev $interface; busybox ip link set $interface up ;;
    bound|renew)
        busybox ip -4 address replace $ip/$mask dev $interface
        busybox ip -4 route replace default via $router
        echo "$1 $ip lease=$lease ntp=$ntpsrv search=$search" ;;
esac
"""
DHCLIENT = """#!/bin/sh
case $reason in
    BOUND|RENEW|REBIND|REBOOT)
        busybox ip -4 address replace $new_ip_address/24 dev $interface
        busybox ip -4 route replace default via $new_routers
        echo $reason ;;
    PREINIT) busybox ip link set $interface up ;;
    RELEASE|EXPIRE|STOP) busybox ip -4 address flush dev $interface ;;
esac
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    text = CONFIG.replace(
        "lease_seconds = 60",
        'lease_seconds = 300\noptions = { ntp-servers = ["10.77.0.3"], domain-search = ["a.example", "b"] }',
    )
    with served(tmp_path, text) as started:
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


def test_udhcpc_declines_what_somebody_has_and_gets_another(server: Served) -> None:
    """Our own probe is switched off and a stranger has the first address: only the client finds out."""
    text = server.config.read_text()
    server.config.write_text(text.replace("lease_seconds", "probe_conflicts = false\nlease_seconds", 1))
    server.processes[-1].send_signal(signal.SIGHUP)
    wait_for(lambda: "has been reread" in server.log, 5)

    def squat() -> None:
        with IPRoute() as links:
            links.addr("add", index=links.link_lookup(ifname=INTERFACE)[0], address=ADDRESS, prefixlen=32)

    server.cable.in_server(squat)
    log = server.state_dir / "client"
    command = (*UDHCPC_COMMAND, "-a", "-A", "1", "-s", script(server, UDHCPC))
    with running(server.cable.client, *command, log=log):
        wait_for(lambda: "bound 10.77.0.101" in log.read_text(), 20)
    assert state_of(server) == "declined"
    assert f"{MAC}: declined {ADDRESS}: something else there has that address" in server.log


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


def dhcpcd(server: Served) -> tuple[str, ...]:
    """It keeps its lease and its socket at fixed places: a mount namespace hides them from other tests."""
    config = server.state_dir / "dhcpcd.conf"
    config.write_text("option ntp_servers\noption domain_search\nnoarp\nnoipv4ll\n")
    places = "mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /var/lib/dhcpcd"
    started = f"exec dhcpcd -4 -B -d -f {config} -c {script(server, '#!/bin/sh')} {CLIENT}"
    return ("unshare", "-m", "sh", "-c", f"{places} && {started}")


def settled(log: Path, reason: str) -> int:
    """How often dhcpcd has told its script of that, its last act before it listens for signals again."""
    lines = log.read_text().splitlines()
    return sum(line.startswith(f"{CLIENT}: executing:") and line.endswith(reason) for line in lines)


def networkd(server: Served) -> tuple[str, ...]:
    """Without PID 1 and D-Bus it runs as it is; with /sys read-only it does not wait for udev."""
    settings = f"[Match]\nName={CLIENT}\n[Network]\nDHCP=ipv4\nLinkLocalAddressing=no\n"
    (server.state_dir / "eth0.network").write_text(settings)
    places = (
        "mount -t tmpfs tmpfs /run && mount -t sysfs -o ro sysfs /sys && mkdir -p /run/systemd/network"
        f" && cp {server.state_dir}/eth0.network /run/systemd/network"
    )
    return ("unshare", "-m", "sh", "-c", f"{places} && exec /lib/systemd/systemd-networkd")


def test_dhcpcd_gets_renews_rebinds_and_releases(server: Served) -> None:
    namespace, log = server.cable.client, server.state_dir / "client"
    with listening(namespace, CLIENT) as wire, running(namespace, *dhcpcd(server), log=log) as client:
        wait_for(lambda: settled(log, "BOUND") == 1, 20)
        client.send_signal(signal.SIGUSR1)
        wait_for(lambda: settled(log, "RENEW") == 1, 20)
        assert wire.saw(MessageType.REQUEST, SERVER, ciaddr=MINE)
        client.send_signal(signal.SIGHUP)
        wait_for(lambda: settled(log, "RENEW") == 2, 20)
        assert wire.saw(MessageType.REQUEST, EVERYBODY, ciaddr=MINE)
        client.send_signal(signal.SIGALRM)
        wait_for(lambda: state_of(server) == "released", 20)


def test_systemd_networkd_gets_renews_and_releases(server: Served) -> None:
    server.config.write_text(
        server.config.read_text().replace("lease_seconds = 300", "lease_seconds = 60", 1)
    )
    server.processes[-1].send_signal(signal.SIGHUP)
    namespace, log = server.cable.client, server.state_dir / "client"
    with (
        listening(namespace, CLIENT) as wire,
        running(namespace, *networkd(server), log=log, SYSTEMD_LOG_TARGET="console"),
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
