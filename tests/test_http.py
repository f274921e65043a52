"""The node-facing port under attack by slowhttptest, as a healthy node beside it sees it."""

import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from tests.lab.conditions import needs_network
from tests.parts import ROOT
from tests.serving import CLIENT, SERVER, Served, served

pytestmark = [pytest.mark.net, needs_network]

ATTACKER, NODE = "10.77.0.60", "10.77.0.61"
URL = f"http://{SERVER}"
MODES = {
    "headers": ("-H", "-i", "1"),
    "body": ("-B", "-i", "1", "-s", "8192"),
    "ranges": ("-R", "-a", "1", "-b", "3000"),
    "reading": ("-X", "-w", "1", "-y", "10", "-n", "1", "-z", "5", "-k", "3"),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("state")) as started:
        started.cable.in_client(_give_addresses)
        yield started


def _give_addresses() -> None:
    with IPRoute() as links:
        index = links.link_lookup(ifname=CLIENT)[0]
        for address in (ATTACKER, NODE):
            links.addr("add", index=index, address=address, prefixlen=24)


def curl(server: Served, *arguments: str, address: str = NODE) -> "subprocess.CompletedProcess[str]":
    return server.cable.run("curl", "-sS", "-m", "10", "--interface", address, *arguments)


def boot_url(server: Served, address: str = NODE) -> str:
    """The URL of a boot of the machine with that address."""
    mac = f"52:54:00:00:00:{address[-2:]}"
    server.ask("PATCH", f"/nodes/{mac}", {"name": f"node{address[-2:]}"})
    script = curl(server, f"{URL}/ipxe/{mac}", address=address).stdout
    found = re.search(r"pxeboot.url=(\S+)", script)
    assert found is not None, script
    return found[1]


def boot(server: Served, target: Path) -> None:
    """Everything a healthy node asks, each request with its limit."""
    url = boot_url(server)
    for name in ("kernel", "initrd", "root"):
        assert curl(server, "-f", "-o", str(target), f"{url}/{name}").returncode == 0
    assert target.read_bytes() == ROOT
    assert curl(server, "-f", "-d", '{"stage": "ready"}', f"{url}/event").returncode == 0


@pytest.mark.parametrize("mode", MODES)
def test_a_slow_attacker_does_not_keep_a_healthy_node_from_its_boot(
    server: Served, tmp_path: Path, mode: str
) -> None:
    url = boot_url(server, ATTACKER)
    target = f"{url}/event" if mode == "body" else f"{url}/root"
    command = ("slowhttptest", *MODES[mode], "-c", "400", "-r", "200", "-l", "6", "-p", "1", "-u", target)
    attack = server.cable.in_client(lambda: subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    try:
        time.sleep(0.5 if mode == "ranges" else 2.5)  # it has its connections
        assert mode == "ranges" or attack.poll() is None  # that one asks once and is done
        for _ in range(3):
            boot(server, tmp_path / "root")
    finally:
        attack.kill()
        attack.communicate()
    assert "Traceback" not in server.log
