"""A client behind an address translator that knows nothing of TFTP."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pyroute2 import IPRoute, netns

from pxeboot.lab import network
from tests.lab.conditions import needs_network
from tests.serving import CLIENT, CONFIG, SERVER, Served, served, wait_for

pytestmark = [pytest.mark.net, needs_network]

MASQUERADE = (
    "table ip nat { chain out { type nat hook postrouting priority srcnat; "
    f'oifname "{CLIENT}" masquerade; }}; }}'
)
CONTENT = os.urandom(100_000)


@contextmanager
def behind_a_translator(server: Served) -> Iterator[str]:
    """A namespace whose only way out leads through the client's, which hides it behind its own address."""
    inside = f"pxeboot-n{os.getpid()}"
    netns.create(inside)
    try:
        server.cable.in_client(lambda: _lay(inside))
        network.in_namespace(inside, lambda: _address("eth1", "192.0.2.2", router="192.0.2.1"))
        yield inside
    finally:
        network.delete(inside)


def _lay(inside: str) -> None:
    with IPRoute() as links:
        links.link("add", ifname="inner0", kind="veth", peer={"ifname": "eth1", "net_ns_fd": inside})
    _address("inner0", "192.0.2.1")
    _address(CLIENT, "10.77.0.50")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")  # of this thread's namespace
    subprocess.run(["nft", MASQUERADE], check=True, capture_output=True)


def _address(interface: str, address: str, router: str | None = None) -> None:
    with IPRoute() as links:
        index = links.link_lookup(ifname=interface)[0]
        links.addr("add", index=index, address=address, prefixlen=24)
        links.link("set", index=index, state="up")
        if router is not None:
            links.route("add", dst="default", gateway=router)


@pytest.mark.parametrize("single_port", [True, False])
def test_one_port_reaches_a_client_behind_a_translator_and_two_do_not(
    tmp_path: Path, single_port: bool
) -> None:
    (tmp_path / "tftp").mkdir()
    (tmp_path / "tftp" / "file").write_bytes(CONTENT)
    table = f'\n[tftp]\nroot = "STATE/tftp"\nsingle_port = {str(single_port).lower()}\n'
    with served(tmp_path, CONFIG + table) as server, behind_a_translator(server) as inside:
        seconds = "30" if single_port else "3"
        command = ("curl", "-sS", "-m", seconds, "-o", str(tmp_path / "got"), f"tftp://{SERVER}/file")
        told = network.in_namespace(inside, lambda: subprocess.run(command, check=False))
        assert (told.returncode == 0) is single_port
        if single_port:
            assert (tmp_path / "got").read_bytes() == CONTENT
            wait_for(lambda: "10.77.0.50: file: done" in server.log, 5)  # once the last ACK is there
