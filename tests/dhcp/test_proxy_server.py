"""Proxy mode over real sockets: our server in a namespace, a client that has its address from elsewhere."""

import socket
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from pxeboot.dhcp import packet
from pxeboot.dhcp.packet import Packet
from tests.lab.conditions import needs_network
from tests.serving import CLIENT, CONFIG, SERVER, Served, served, wait_for

pytestmark = [pytest.mark.net, needs_network]

DATA = Path(__file__).parent.parent / "data"
PROXY = CONFIG.replace('pool = ["10.77.0.100-10.77.0.249"]\nlease_seconds = 60', 'mode = "proxy"')
ADDRESS = "10.77.0.130"  # given by the other server when the request was captured
MAC = "52:54:00:77:00:01"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path, PROXY) as started:
        yield started


def ask(server: Served, name: str, port: int, to: tuple[str, int]) -> tuple[Packet, tuple[str, int]] | None:
    """Send a captured request from that port of the client's side; the answer and who sent it."""

    def talk() -> tuple[bytes, tuple[str, int]] | None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, CLIENT.encode())
            client.settimeout(2)
            client.bind(("", port))
            client.sendto((DATA / f"{name}.bin").read_bytes(), to)
            try:
                return client.recvfrom(2048)
            except TimeoutError:
                return None

    heard = server.cable.in_client(talk)
    return None if heard is None else (packet.decode(heard[0]), heard[1])


def give_client(server: Served, address: str) -> None:
    def add() -> None:
        with IPRoute() as links:
            links.addr("add", index=links.link_lookup(ifname=CLIENT)[0], address=address, prefixlen=24)

    server.cable.in_client(add)


def test_firmware_is_told_at_67_and_at_4011_and_its_address_is_known(server: Served) -> None:
    give_client(server, ADDRESS)
    offered = ask(server, "discover-ovmf", 68, ("255.255.255.255", 67))
    assert offered is not None
    assert (offered[0].yiaddr, offered[0].file, offered[1]) == (IPv4Address(0), b"snponly.efi", (SERVER, 67))
    acked = ask(server, "boot-server-ovmf", 4011, (SERVER, 4011))
    assert acked is not None
    assert (acked[0].file, acked[1]) == (b"snponly.efi", (SERVER, 4011))
    (node,) = server.ask("GET", "/nodes")["nodes"]
    assert (node["mac"], node["stage"], node["address"]) == (MAC, "address", ADDRESS)
    got = server.cable.run("curl", "-s", "-o", "/dev/null", f"tftp://{SERVER}/snponly.efi")
    assert got.returncode == 0
    wait_for(lambda: server.ask("GET", f"/nodes/{MAC}")["boots"][0]["sent"].get("tftp snponly.efi"), 5)
    assert server.ask("GET", f"/nodes/{MAC}")["stage"] == "loader"


def test_grub_is_told_by_the_address_it_asks_from(server: Served) -> None:
    give_client(server, ADDRESS)
    url = f"tftp://{SERVER}/grub/grub.cfg"
    assert server.cable.run("curl", "-s", url).returncode == 68  # not found: who asks?
    assert ask(server, "discover-ovmf", 68, ("255.255.255.255", 67)) is not None
    assert ask(server, "boot-server-ovmf", 4011, (SERVER, 4011)) is not None
    told = server.cable.run("curl", "-s", url).stdout
    assert f"if linux (tftp,{SERVER})/boot/" in told
    assert f"BOOTIF=01-{MAC.replace(':', '-')}" in told


def test_who_only_wants_an_address_hears_nothing(server: Served) -> None:
    assert ask(server, "discover-udhcpc", 68, ("255.255.255.255", 67)) is None
    assert ask(server, "request-udhcpc", 68, ("255.255.255.255", 67)) is None


def test_nonsense_at_4011_leaves_it_answering(server: Served) -> None:
    give_client(server, ADDRESS)
    for size in (0, 1, 239, 300, 1400):
        server.cable.in_client(lambda size=size: _throw(bytes(range(256)) * 6, size))  # type: ignore[misc]
    assert ask(server, "boot-server-ovmf", 68, (SERVER, 4011)) is not None
    assert "Traceback" not in server.log


def _throw(data: bytes, size: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(data[:size], (SERVER, 4011))


def test_check_names_the_port_and_a_second_pxe_server(server: Served) -> None:
    server.stop()
    assert "PXE, UDP 4011 on boot0" in server.cli("check").stdout
