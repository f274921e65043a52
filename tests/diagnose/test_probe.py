"""`pxeboot probe` finds real servers: our own on this very box, a rogue dnsmasq, and one that is a proxy."""

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyroute2 import IPRoute

from tests.lab.conditions import needs_network
from tests.neighbour import INTERFACE as NEIGHBOURS
from tests.neighbour import NEIGHBOUR, Neighbour, neighbour
from tests.serving import CLIENT, INTERFACE, MAC, SERVER, Cable, Served, served, wait_for

pytestmark = [pytest.mark.net, needs_network]

DNSMASQ = (
    "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root", "--no-ping",
    "--log-dhcp", "--log-facility=-", "--pid-file=", "--bind-interfaces",
)  # fmt: skip


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path) as started:
        yield started


@contextlib.contextmanager
def dnsmasq(place: Cable | Neighbour, directory: Path, *options: str) -> Iterator[None]:
    """A server at the client's end of the cable, or the neighbour's; it answers when the block begins."""
    log = directory / "dnsmasq.log"
    command = (*DNSMASQ, f"--dhcp-leasefile={directory}/leases", *options)

    def start() -> "subprocess.Popen[bytes]":
        with log.open("wb") as file:
            return subprocess.Popen(command, stderr=file, stdout=file)

    process = place.in_client(start) if isinstance(place, Cable) else place.run(start)
    try:
        wait_for(lambda: "DHCP" in log.read_text(), 5)
        yield
    finally:
        process.kill()
        process.wait()


def probed(server: Served, *options: str) -> list[dict[str, Any]]:
    told = server.cli("probe", "-i", INTERFACE, "--seconds", "2", "--json", *options)
    assert told.returncode == 0, told.stderr
    found: list[dict[str, Any]] = json.loads(told.stdout)["servers"]
    return found


def test_our_own_server_on_this_box_hears_it_and_keeps_no_trace(server: Served) -> None:
    (own,) = probed(server)
    boots = own.pop("boots")
    mac = own.pop("mac")
    assert own == {
        "interface": INTERFACE, "server": SERVER, "address": SERVER, "kind": "DHCP", "offered": "10.77.0.100",
        "gives_addresses": True, "gives_boot_only": False, "whose": "ours",
    }  # fmt: skip
    assert boots["BIOS"] == f"undionly.kpxe from {SERVER}"
    assert boots["UEFI"] == f"snponly.efi from {SERVER}"
    assert boots["HTTP"].startswith(f"http://{SERVER}/")
    assert mac != MAC
    assert server.ask("GET", "/nodes") == {"nodes": []}
    leases = server.ask("GET", "/leases")["leases"]
    assert [(item["address"], item["state"]) for item in leases] == [("10.77.0.100", "offered")]


def test_a_rogue_and_a_proxy_are_told_apart_and_named(server: Served, tmp_path: Path) -> None:
    def address() -> None:
        with IPRoute() as links:
            index = links.link_lookup(ifname=CLIENT)[0]
            links.addr("add", index=index, address="10.77.0.2", prefixlen=24)

    server.cable.in_client(address)
    for name in ("rogue", "proxy"):
        (tmp_path / name).mkdir()
    rogue = (f"--interface={CLIENT}", "--dhcp-range=10.77.0.210,10.77.0.220", "--dhcp-boot=rogue.0")
    proxy = (
        f"--interface={NEIGHBOURS}", "--dhcp-range=10.77.0.0,proxy", "--pxe-service=x86PC,Boot,pxelinux",
        "--pxe-service=X86-64_EFI,Boot,grubx64.efi",
    )  # fmt: skip
    with (
        neighbour(server.cable, "10.77.0.3") as third,
        dnsmasq(server.cable, tmp_path / "rogue", *rogue),
        dnsmasq(third, tmp_path / "proxy", *proxy),
    ):
        found = {item["server"]: item for item in probed(server)}
        shown = server.cli("probe", "-i", INTERFACE, "--seconds", "2").stdout
    assert sorted(found) == [SERVER, "10.77.0.2", "10.77.0.3"]
    one, two = found["10.77.0.2"], found["10.77.0.3"]
    assert (one["kind"], one["mac"], one["whose"]) == ("DHCP", MAC, "another")
    assert one["boots"]["BIOS"] == "rogue.0 from 10.77.0.2"
    assert (two["kind"], two["mac"], two["offered"]) == ("ProxyDHCP", NEIGHBOUR, None)
    assert sorted(two["boots"]) == ["BIOS", "UEFI"]
    assert "2 servers give addresses (10.77.0.1, 10.77.0.2)" in shown
    assert f"{INTERFACE}: 10.77.0.2 boots plain: rogue.0 from 10.77.0.2; BIOS: rogue.0" in shown
    assert f"ProxyDHCP  -            another  {NEIGHBOUR}" in shown
    assert "did not answer" not in shown


def test_it_says_that_nobody_answers_and_that_our_own_server_does_not(server: Served) -> None:
    pool = server.config.read_text()
    server.config.write_text(pool.replace("[server]", '[server]\nunknown = "ignore"'))
    server.stop()
    server.start()
    told = server.cli("probe", "-i", INTERFACE, "--seconds", "1")
    assert (told.returncode, told.stdout.splitlines()) == (
        0,
        [
            f"{INTERFACE}: nobody answered within 1 s",
            f"{INTERFACE}: this box's pxeboot ({SERVER}) did not answer; see its log",
        ],
    )


def test_every_ethernet_interface_is_asked_where_none_is_named(server: Served) -> None:
    told = json.loads(server.cli("probe", "--seconds", "1", "--json").stdout)
    assert [item["interface"] for item in told["servers"]] == [INTERFACE]


@pytest.mark.parametrize(
    ("interface", "message"),
    [("eth7", "error: interface 'eth7' does not exist"), ("lo", "error: interface 'lo' carries no Ethernet")],
)
def test_an_interface_that_cannot_be_asked_is_refused_with_a_hint(
    server: Served, interface: str, message: str
) -> None:
    told = server.cli("probe", "-i", interface)
    assert told.returncode == 1
    assert told.stderr.startswith(message)
    assert "hint: name " in told.stderr
