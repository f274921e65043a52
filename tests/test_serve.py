"""The server as its clients see it: real sockets, dhclient, udhcpc, tftp, kill -9, nonsense at every port."""

import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from pxeboot.dhcp import packet
from pxeboot.dhcp.packet import Packet
from pxeboot.lab import network
from pxeboot.pxe.arch import UNDIONLY
from tests.lab.conditions import needs_network
from tests.serving import CLIENT, CONFIG, MAC, SERVER, Served, cable, send_tcp, send_udp, served, wait_for

pytestmark = [pytest.mark.net, needs_network]

UDHCPC_SCRIPT = """#!/bin/sh
[ "$1" != bound ] || echo "ip=$ip serverid=$serverid lease=$lease hostname=$hostname router=$router"
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path) as started:
        yield started


def udhcpc(server: Served, *options: str) -> str:
    """One lease through busybox's client; what its script printed."""
    script = server.state_dir / "udhcpc"
    script.write_text(UDHCPC_SCRIPT)
    script.chmod(0o755)
    command = ("busybox", "udhcpc", "-i", CLIENT, "-f", "-q", "-n", "-t", "5", "-T", "1", "-s", str(script))
    return server.cable.run(*command, *options).stdout.strip()


def give_client(server: Served, address: str) -> None:
    def add() -> None:
        with IPRoute() as links:
            index = links.link_lookup(ifname=CLIENT)[0]
            links.addr("add", index=index, address=address, prefixlen=24)

    server.cable.in_client(add)


def end_dhclient(files: Path) -> None:
    """End the one that stayed in the background; it may still be about to write its process id."""
    written = wait_for(lambda: (files / "pid").exists() and (files / "pid").read_text(), 5)
    os.kill(int(written), signal.SIGTERM)
    (files / "pid").unlink()


def test_prometheus_reads_what_the_servers_did(server: Served) -> None:
    udhcpc(server)
    give_client(server, "10.77.0.50")
    server.cable.run("curl", "-s", "-o", "/dev/null", f"tftp://{SERVER}/undionly.kpxe")
    wait_for(lambda: ": done, " in server.log, 5)
    ask = ("curl", "-sS", "http://127.0.0.1:8080/metrics")
    told = server.cable.in_server(lambda: subprocess.run(ask, capture_output=True, text=True, check=True))
    numbers = dict(line.rsplit(" ", 1) for line in told.stdout.splitlines() if not line.startswith("#"))
    for name in ('dhcp_requests_total{type="discover"}', 'dhcp_requests_total{type="request"}'):
        assert float(numbers[f"pxeboot_{name}"]) >= 1, told.stdout
    assert numbers['pxeboot_tftp_transfers_total{result="done"}'] == "1.0"
    assert float(numbers["pxeboot_tftp_bytes_total"]) == UNDIONLY.path.stat().st_size
    assert numbers['pxeboot_leases{subnet="10.77.0.0/24"}'] == "1.0"


def test_udhcpc_gets_its_lease_and_the_same_again(server: Served) -> None:
    first = udhcpc(server)
    name = f"node-{MAC.replace(':', '')}"
    assert first == f"ip=10.77.0.100 serverid={SERVER} lease=60 hostname={name} router={SERVER}"
    assert udhcpc(server) == first
    assert udhcpc(server, "-B") == first  # asks for broadcast replies


def test_dhclient_gets_renews_and_releases(server: Served) -> None:
    files = server.state_dir
    common = ("-v", "-sf", "/bin/true", "-lf", str(files / "leases"), "-pf", str(files / "pid"))
    taken = server.cable.run("dhclient", "-1", *common, CLIENT)
    assert f"DHCPACK of 10.77.0.100 from {SERVER}" in taken.stderr
    give_client(server, "10.77.0.100")
    end_dhclient(files)
    again = server.cable.run("dhclient", "-1", *common, CLIENT)  # INIT-REBOOT
    assert "DHCPREQUEST for 10.77.0.100" in again.stderr
    assert "DHCPDISCOVER" not in again.stderr
    server.cable.run("dhclient", "-r", *common, CLIENT)
    wait_for(lambda: server.ask("GET", "/leases")["leases"][0]["state"] == "released", 5)


def test_a_reservation_holds_from_the_next_packet_on(server: Served) -> None:
    assert "ip=10.77.0.100" in udhcpc(server)
    told = server.cli("node", "set", MAC, "--name", "web7", "--address", "10.77.0.7")
    assert (told.returncode, told.stdout) == (0, f"{MAC}: web7, group web, address 10.77.0.7\n")
    assert "ip=10.77.0.7 " in udhcpc(server)
    assert "hostname=web7" in udhcpc(server)


def test_options_and_uuids_are_set_at_the_command_line(server: Served) -> None:
    told = server.cli("node", "set", MAC, "--option", "domain-name=boot.example", "--option", "224=hex:01")
    assert told.returncode == 0, told.stderr
    told = server.cli("node", "set", MAC, "--option", 'vendor-specific={"6": "hex:08"}', "--option", "224=")
    shown = server.cli("node", "show", MAC).stdout
    assert 'option    domain-name = "boot.example"' in shown
    assert 'option    vendor-specific = {"6": "hex:08"}' in shown
    assert "224" not in shown
    refused = server.cli("node", "set", MAC, "--option", "ntp-servers")
    assert (refused.returncode, "has no =" in refused.stderr) == (1, True)
    machine = "00112233-4455-6677-8899-aabbccddeeff"
    told = server.cli("node", "set", machine, "--name", "db1")
    assert (told.returncode, told.stdout) == (0, f"{machine}: db1, group web, address by pool\n")
    assert "(not seen)" in server.cli("node", "list").stdout
    assert machine in server.cli("node", "show", "db1").stdout


def test_a_rack_is_imported_at_once_or_not_at_all(server: Served) -> None:
    rack = server.state_dir / "rack.csv"
    rack.write_text(f"mac,name,address\n{MAC},web1,10.77.0.11\n52:54:00:00:00:78,web1,10.9.9.9\n")
    told = server.cli("node", "import", str(rack))
    assert (told.returncode, told.stdout) == (1, "")
    assert told.stderr.splitlines() == [
        f"error: {rack}: 1 of 2 nodes cannot be taken; nothing was changed",
        "  line 3: address: 10.9.9.9 is in no configured network (choose one in a subnet of ours)",
        "hint: mend these places and import the file again",
    ]
    rack.write_text(rack.read_text().replace("web1,10.9.9.9", "web2,"))
    assert server.cli("node", "import", str(rack)).stdout == "2 added, 0 changed, 0 as before\n"
    assert server.cli("node", "import", str(rack)).stdout == "0 added, 0 changed, 2 as before\n"
    assert "ip=10.77.0.11 " in udhcpc(server)
    assert "error: no.csv: No such file or directory" in server.cli("node", "import", "no.csv").stderr


def test_an_address_that_is_not_the_clients_is_refused(server: Served) -> None:
    server.cli("node", "set", MAC, "--address", "10.77.0.7")
    files = server.state_dir
    (files / "leases").write_text(
        'lease { interface "eth0"; fixed-address 10.77.0.105; option dhcp-server-identifier 10.77.0.1;'
        " option dhcp-lease-time 600; renew never; rebind never; expire never; }\n"
    )
    udhcpc(server)  # it is known from now on, so the server may contradict
    common = ("-v", "-sf", "/bin/true", "-lf", str(files / "leases"), "-pf", str(files / "pid"))
    taken = server.cable.run("dhclient", "-1", *common, CLIENT)
    end_dhclient(files)
    assert "DHCPNAK" in taken.stderr
    assert "DHCPACK of 10.77.0.7" in taken.stderr


def test_a_lease_survives_kill_9_of_the_server(server: Served) -> None:
    first = udhcpc(server)
    server.stop(signal.SIGKILL)
    server.start()
    with sqlite3.connect(server.state_dir / "pxeboot.sqlite") as db:
        assert db.execute("SELECT address, state FROM lease").fetchall() == [("10.77.0.100", "bound")]
    db.close()
    assert udhcpc(server) == first


def test_loaders_are_served_and_nothing_else(server: Served) -> None:
    give_client(server, "10.77.0.50")
    got = server.state_dir / "got"
    for name in ("undionly.kpxe", "/undionly.kpxe", "\\undionly.kpxe"):
        server.cable.run("curl", "-s", "--tftp-blksize", "1468", "-o", str(got), f"tftp://{SERVER}/{name}")
        assert got.read_bytes() == Path("/usr/lib/ipxe/undionly.kpxe").read_bytes()
    for name in ("etc/passwd", "../../etc/passwd", "%2e%2e/pxeboot.toml", str(server.config), "x" * 400):
        missed = server.cable.run("curl", "-sS", "-o", "/dev/null", f"tftp://{SERVER}/{name}")
        assert missed.returncode in (68, 69, 71), missed.stderr


def test_a_machine_without_group_or_image_is_answered_by_dhcp_alone(server: Served) -> None:
    give_client(server, "10.77.0.50")
    told = server.cable.run("curl", "-s", f"http://{SERVER}/ipxe/52:54:00:99:99:99").stdout
    assert "no group claims 52:54:00:99:99:99" in told
    assert server.cable.run("curl", "-s", f"http://{SERVER}/etc/passwd").stdout == "404: Not Found"


def test_nonsense_at_every_port_leaves_it_serving(server: Served) -> None:
    give_client(server, "10.77.0.50")
    dice = random.Random(1)
    datagrams = [dice.randbytes(dice.randrange(601)) for _ in range(600)]
    like_dhcp = packet.encode(Packet(1, 1, b"\x52\x54\0\0\0\1", options={53: b"\1"}))
    for _ in range(600):
        damaged = bytearray(like_dhcp)
        for _ in range(dice.randrange(1, 8)):
            damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        datagrams.append(bytes(damaged))
    for port in (67, 69):
        server.cable.in_client(lambda port=port: send_udp(port, datagrams))  # type: ignore[misc]
    for request in (
        b"\0" * 600,
        b"GET / HTTP/7\r\n\r\n",
        b"POST /boot/x/event HTTP/1.1\r\nContent-Length: 9\r\n\r\n{",
    ):
        server.cable.in_client(lambda request=request: send_tcp(request))  # type: ignore[misc]
    assert f"serverid={SERVER}" in udhcpc(server)
    assert "#!ipxe" in server.cable.run("curl", "-s", f"http://{SERVER}/ipxe/52:54:00:99:99:99").stdout
    got = server.cable.run("curl", "-s", f"tftp://{SERVER}/undionly.kpxe", "-o", "/dev/null")
    assert (got.returncode, "Traceback" in server.log) == (0, False)


def test_a_node_is_found_by_its_name(tmp_path: Path) -> None:
    with served(tmp_path, CONFIG + '[dns]\ndomain = "boot.example"\n') as server:
        server.cli("node", "set", MAC, "--name", "web7", "--address", "10.77.0.7")
        give_client(server, "10.77.0.7")
        dig = ("dig", f"@{SERVER}", "+short", "+time=2")
        wait_for(lambda: server.cable.run(*dig, "web7.boot.example").stdout == "10.77.0.7\n", 10)
        assert server.cable.run(*dig, "-x", "10.77.0.7").stdout == "web7.boot.example.\n"
        assert server.cable.run(*dig, "pxeboot.boot.example").stdout == f"{SERVER}\n"


def test_sigterm_ends_it_within_five_seconds_and_cleanly(server: Served) -> None:
    assert server.stop() == 0
    assert "Traceback" not in server.log
    server.start()


def test_sigterm_does_not_wait_for_streams(server: Served) -> None:
    command = (
        "curl",
        "-sN",
        "--unix-socket",
        str(server.state_dir / "pxeboot.sock"),
        "http://x/api/v1/events",
    )
    with subprocess.Popen(command, stdout=subprocess.PIPE) as stream:
        assert stream.stdout is not None
        server.cli("node", "set", MAC, "--name", "web7")
        assert stream.stdout.readline() == b"event: node\n"
        assert server.stop() == 0
        assert stream.wait(timeout=5) in (0, 18)  # ended by the server: properly, or in the middle


def test_sighup_takes_the_new_file_and_refuses_a_broken_one(server: Served) -> None:
    text = server.config.read_text()
    server.config.write_text(text.replace("lease_seconds = 60", "lease_seconds = 90"))
    server.processes[-1].send_signal(signal.SIGHUP)
    wait_for(lambda: "has been reread" in server.log, 5)
    assert "lease=90" in udhcpc(server)
    server.config.write_text(text.replace("lease_seconds", "lease_second"))
    server.processes[-1].send_signal(signal.SIGHUP)
    wait_for(lambda: "stays as it was" in server.log, 5)
    assert "lease=90" in udhcpc(server)


def test_a_second_server_is_refused(server: Served) -> None:
    told = server.cli("serve")
    assert (told.returncode, "a pxeboot server is running with" in told.stderr) == (1, True)


def test_the_socket_is_the_owners_only(server: Served) -> None:
    assert (server.state_dir / "pxeboot.sock").stat().st_mode & 0o777 == 0o600


def test_listings_are_tables_and_json(server: Served) -> None:
    server.cli("node", "set", MAC, "--name", "web7")
    assert "web7" in server.cli("node", "list").stdout
    assert json.loads(server.cli("node", "list", "--json").stdout)["nodes"][0]["name"] == "web7"
    assert "10.77.0.0/24" in server.cli("status").stdout
    assert json.loads(server.cli("status", "--json").stdout)["networks"][0]["interface"] == "boot0"
    assert MAC in server.cli("node", "show", "web7").stdout
    missing = server.cli("node", "show", "web8")
    assert (missing.returncode, "error: there is no node 'web8'" in missing.stderr) == (1, True)


def test_check_says_what_is_wrong_line_by_line(tmp_path: Path) -> None:
    text = (
        CONFIG.replace("STATE", str(tmp_path)) + '[[network]]\ninterface = "none0"\nsubnet = "10.78.0.0/24"\n'
    )
    (tmp_path / "pxeboot.toml").write_text(text)
    with cable() as laid, laid.in_server(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as other:
        other.bind(("0.0.0.0", 67))
        told = Served(laid, tmp_path).cli("check")
        served_too = Served(laid, tmp_path).cli("serve")
    assert told.returncode == 1
    for words in (
        "ok    interface boot0: 10.77.0.1 in 10.77.0.0/24",
        "FAIL  interface none0: interface 'none0' does not exist",
        "FAIL  DHCP, UDP 67 on boot0: UDP port 67 on boot0: Address already in use",
        "ok    HTTP, TCP 80 on 10.77.0.1: free",
        "ok    loader undionly.kpxe: ",
        "FAIL  image web: ",
    ):
        assert words in told.stdout
    assert (served_too.returncode, "error: interface 'none0' does not exist" in served_too.stderr) == (
        1,
        True,
    )


def test_the_namespaces_are_gone_afterwards() -> None:
    with cable() as laid:
        assert network.exists(laid.server)
    assert not network.exists(laid.server)
    assert not network.exists(laid.client)
