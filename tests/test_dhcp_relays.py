"""Real DHCP clients behind real relays: they get, renew, rebind and release their lease."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from pyroute2 import IPRoute, netns

from pxeboot.dhcp.options import MessageType
from pxeboot.lab import network
from tests.lab.conditions import needs_network
from tests.serving import CLIENT, CONFIG, SERVER, Served, served, wait_for
from tests.test_dhcp_clients import (
    DHCLIENT,
    UDHCPC,
    UDHCPC_COMMAND,
    dhcpcd,
    networkd,
    script,
    settled,
    state_of,
)
from tests.wire import Wire, listening, running

pytestmark = [pytest.mark.net, needs_network]

RELAY, RELAYED, ROUTER, BEHIND = "10.77.0.2", "10.88.0.100", "10.88.0.1", "relay0"
EVERYBODY = "255.255.255.255"
RELAYED_NETWORK = """
[[network]]
subnet = "10.88.0.0/24"
pool = ["10.88.0.100-10.88.0.199"]
router = "10.88.0.1"
lease_seconds = LEASE
"""


@contextmanager
def behind_a_relay(server: Served) -> Iterator[str]:
    """A namespace for a client; the far end of the first cable becomes the host of a relay between them."""
    name = f"pxeboot-e{os.getpid()}"

    def lay() -> None:
        with IPRoute() as links:
            links.addr("add", index=links.link_lookup(ifname=CLIENT)[0], address=RELAY, prefixlen=24)
            links.link("add", ifname=BEHIND, kind="veth", peer={"ifname": CLIENT, "net_ns_fd": name})
            index = links.link_lookup(ifname=BEHIND)[0]
            links.addr("add", index=index, address=ROUTER, prefixlen=24)
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
    "dnsmasq": (*DNSMASQ, f"--dhcp-relay={ROUTER},{SERVER}"),
}


HERE, FAR, DIRECT = IPv4Address(RELAYED), IPv4Address(ROUTER), IPv4Address(0)


@dataclass
class Line:
    """A client's namespace behind a running relay, and what is heard on both sides of that."""

    server: Served
    namespace: str
    wire: Wire
    """Between relay and server."""
    link: Wire
    """Between client and relay."""

    @property
    def folder(self) -> Path:
        return self.server.state_dir

    @property
    def state(self) -> str:
        return state_of(self.server, RELAYED)

    def forward(self, *, on: bool) -> None:
        """Whether the relay's host routes, as a machine needs that renews without the relay.

        Where it does not, a renewal becomes a rebinding. Not so with dhcrelay, which also takes what is sent
        to the server's address when it passes by.
        """
        switch = Path("/proc/sys/net/ipv4/ip_forward")
        self.server.cable.in_client(lambda: switch.write_text(str(int(on))))

    def renews(self) -> bool:
        """It asked for more time straight, and was answered straight."""
        return self.wire.saw(MessageType.REQUEST, SERVER, ciaddr=HERE, giaddr=DIRECT) and self.wire.saw(
            MessageType.ACK, RELAYED, ciaddr=HERE
        )

    def rebinds(self) -> bool:
        """It asked everybody, through the relay, and the answer came that way."""
        return (
            self.link.saw(MessageType.REQUEST, EVERYBODY, ciaddr=HERE)
            and self.wire.saw(MessageType.REQUEST, SERVER, ciaddr=HERE, giaddr=FAR)
            and self.wire.saw(MessageType.ACK, ROUTER, ciaddr=HERE)
        )


@contextmanager
def line(folder: Path, relay: str, lease_seconds: int = 300) -> Iterator[Line]:
    text = CONFIG + RELAYED_NETWORK.replace("LEASE", str(lease_seconds))
    with (
        served(folder, text) as server,
        behind_a_relay(server) as namespace,
        running(server.cable.client, *RELAYS[relay], log=folder / "relay"),
        listening(server.cable.client, CLIENT) as wire,
        listening(server.cable.client, BEHIND) as link,
    ):
        yield Line(server, namespace, wire, link)


@pytest.mark.parametrize("relay", RELAYS)
def test_udhcpc_behind_a_relay(relay: str, tmp_path: Path) -> None:
    log = tmp_path / "client"
    with line(tmp_path, relay) as laid:
        command = (*UDHCPC_COMMAND, "-s", script(laid.server, UDHCPC))
        with running(laid.namespace, *command, log=log) as client:
            wait_for(lambda: f"bound {RELAYED}" in log.read_text(), 15)
            assert laid.wire.saw(MessageType.ACK, ROUTER, giaddr=FAR)
            assert relay != "dhcrelay with option 82" or any(
                82 in told.options for _, _, told in laid.wire.heard
            )
            client.send_signal(signal.SIGUSR1)
            wait_for(lambda: f"renew {RELAYED}" in log.read_text(), 10)
            assert laid.renews()
            if relay == "dnsmasq":
                laid.forward(on=False)
                client.send_signal(signal.SIGUSR1)
                wait_for(laid.rebinds, 20)
                wait_for(lambda: log.read_text().count(f"renew {RELAYED}") == 2, 5)
                laid.forward(on=True)
            client.send_signal(signal.SIGUSR2)
            wait_for(lambda: laid.state == "released", 10)


def test_a_machine_that_renews_through_a_router_hears_that_it_may_not(tmp_path: Path) -> None:
    """Its reservation is another now. Our broadcast would not reach it, and it would keep the address."""
    log = tmp_path / "client"
    with line(tmp_path, "dnsmasq") as laid:
        command = (*UDHCPC_COMMAND, "-s", script(laid.server, UDHCPC))
        with running(laid.namespace, *command, log=log) as client:
            wait_for(lambda: f"bound {RELAYED}" in log.read_text(), 15)
            (lease,) = [
                item for item in laid.server.ask("GET", "/leases")["leases"] if item["address"] == RELAYED
            ]
            laid.server.ask("PATCH", f"/nodes/{lease['mac']}", {"address": "10.88.0.7"})
            client.send_signal(signal.SIGUSR1)
            wait_for(lambda: "bound 10.88.0.7" in log.read_text(), 15)
        assert laid.wire.saw(MessageType.NAK, RELAYED)
        assert not laid.wire.saw(MessageType.NAK, EVERYBODY)


@pytest.mark.parametrize("relay", ["dhcrelay with option 82", "dnsmasq"])
def test_dhclient_behind_a_relay(relay: str, tmp_path: Path) -> None:
    config = tmp_path / "dhclient.conf"
    config.write_text("supersede dhcp-renewal-time 2; supersede dhcp-rebinding-time 4;")
    with line(tmp_path, relay) as laid:
        files = ("-cf", str(config), "-sf", script(laid.server, DHCLIENT), "-lf", str(tmp_path / "leases"))
        command = ("dhclient", "-d", "-1", *files, "-pf", str(tmp_path / "pid"), CLIENT)
        with running(laid.namespace, *command, log=tmp_path / "client"):
            wait_for(laid.renews, 15)
            if relay == "dnsmasq":
                laid.forward(on=False)
                wait_for(laid.rebinds, 15)
                laid.forward(on=True)
        release = ("dhclient", "-r", *files, "-pf", str(tmp_path / "pid"), CLIENT)
        with running(laid.namespace, *release, log=tmp_path / "client"):
            wait_for(lambda: laid.state == "released", 10)


@pytest.mark.parametrize("relay", ["dhcrelay with option 82", "dnsmasq"])
def test_dhcpcd_behind_a_relay(relay: str, tmp_path: Path) -> None:
    with (
        line(tmp_path, relay) as laid,
        running(laid.namespace, *dhcpcd(laid.server), log=tmp_path / "client") as client,
    ):
        log = tmp_path / "client"
        wait_for(lambda: settled(log, "BOUND") == 1, 20)
        client.send_signal(signal.SIGUSR1)
        wait_for(lambda: settled(log, "RENEW") == 1, 20)
        assert laid.renews()
        client.send_signal(signal.SIGHUP)
        wait_for(lambda: settled(log, "RENEW") == 2, 20)
        assert laid.rebinds()
        client.send_signal(signal.SIGALRM)
        wait_for(lambda: laid.state == "released", 20)


def test_systemd_networkd_behind_a_relay_rebinds_when_its_renewal_goes_astray(tmp_path: Path) -> None:
    with (
        line(tmp_path, "dnsmasq", lease_seconds=60) as laid,
        running(
            laid.namespace, *networkd(laid.server), log=tmp_path / "client", SYSTEMD_LOG_TARGET="console"
        ) as client,
    ):
        wait_for(lambda: f"DHCPv4 address {RELAYED}/24" in (tmp_path / "client").read_text(), 15)
        laid.forward(on=False)
        # Nothing but time makes it: half of the shortest lease, then seven eighths.
        wait_for(laid.rebinds, 60)
        laid.forward(on=True)
        assert laid.state == "bound"
        client.terminate()
        wait_for(lambda: laid.state == "released", 5)
