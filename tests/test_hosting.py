"""The hosting example: two nodes, virtual hosts by rule, documents on a real NFS server."""

import asyncio
import http.client
import os
import shutil
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pxeboot.cli.client import connect
from pxeboot.image.library import Library
from pxeboot.lab import network
from pxeboot.lab.scenario import Lab, Scenario
from tests.conftest import BUILDING
from tests.lab.conditions import needs_emulator, needs_network

GANESHA = "ganesha.nfsd"
pytestmark = [
    pytest.mark.boot,
    needs_network,
    needs_emulator,
    pytest.mark.skipif(shutil.which(GANESHA) is None, reason="apt-get install nfs-ganesha nfs-ganesha-vfs"),
    pytest.mark.timeout(540),
]

EXAMPLE = Path(__file__).parent.parent / "examples/hosting"
SITES = ("one.example", "two.example", "three.example")


@pytest.fixture(scope="module")
def library() -> Library:
    """With the example's image in it."""
    command = ["-m", "pxeboot.cli.main", "image", "build", str(EXAMPLE), "--state-dir", str(BUILDING)]
    built = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=400, check=False
    )
    assert built.returncode == 0, built.stderr
    return Library(BUILDING / "images")


@contextmanager
def file_server(namespace: str, folder: Path) -> Iterator[Path]:
    """An NFS server of version 4 alone on the lab's own address; the sites are in the folder it gives."""
    sites = folder / "sites"
    for path in (sites, folder / "state"):
        path.mkdir()
    config = folder / "ganesha.conf"
    config.write_text(f"""
NFS_CORE_PARAM {{ Protocols = 4; NFS_Port = 2049; Bind_addr = {network.ADDRESS.ip}; Enable_UDP = false;
    Enable_NLM = false; Enable_RQUOTA = false; allow_set_io_flusher_fail = true; }}
NFSV4 {{ Graceless = true; Minor_Versions = 1, 2; RecoveryRoot = {folder}/state; }}
EXPORT {{ Export_Id = 1; Path = {sites}; Pseudo = /sites; Access_Type = RO; Squash = All_Squash;
    SecType = sys; Attr_Expiration_Time = 1; FSAL {{ Name = VFS; }} }}
""")
    command = [GANESHA, "-F", "-f", str(config), "-L", str(folder / "ganesha.log"), "-p", str(folder / "pid")]
    process = network.in_namespace(namespace, lambda: subprocess.Popen(command, stdin=subprocess.DEVNULL))
    try:
        deadline = time.monotonic() + 60
        log = folder / "ganesha.log"
        while not log.exists() or "NFS SERVER INITIALIZED" not in log.read_text():
            assert time.monotonic() < deadline
            assert process.poll() is None, log.read_text()[-2000:]
            time.sleep(0.2)
        yield sites
    finally:
        process.kill()
        process.wait()


def add_site(sites: Path, name: str) -> None:
    (sites / name).mkdir()
    (sites / name / "index.php").write_text(f"<?php echo '{name} by ', gethostname();")


def ask(namespace: str, address: str, host: str, path: str = "/") -> tuple[int, str, str | None]:
    """Status, body and the node that a site's answer names."""

    def once() -> tuple[int, str, str | None]:
        connection = http.client.HTTPConnection(address, 80, timeout=30)
        try:
            connection.request("GET", path, headers={"Host": host})
            answer = connection.getresponse()
            return answer.status, answer.read().decode(), answer.getheader("X-Node")
        finally:
            connection.close()

    return network.in_namespace(namespace, once)


async def test_two_nodes_serve_sites_from_nfs_and_a_new_folder_is_a_new_site(
    library: Library, tmp_path: Path
) -> None:
    assert library.tag("hosting")
    scenario = Scenario(state_dir=BUILDING, name=f"host-{os.getpid()}", nodes=2, image="hosting")
    async with Lab(scenario) as lab:
        with file_server(lab.namespace, tmp_path) as sites:
            for name in SITES:
                add_site(sites, name)
            await give_files(lab)
            await lab.power_on()
            async for progress in lab.follow():
                nodes = [item.node for item in progress]
            for node in nodes:
                assert node is not None
                assert "failed units" not in node.detail
                address = str(node.address)
                for name in SITES:
                    assert ask(lab.namespace, address, name) == (200, f"{name} by {node.name}", node.name)
                assert ask(lab.namespace, address, SITES[0], "/which-node") == (
                    200,
                    f"{node.name}\n",
                    node.name,
                )
                assert ask(lab.namespace, address, "four.example")[0] == 404
            add_site(sites, "four.example")
            for node in nodes:
                assert node is not None
                await appears(lab.namespace, str(node.address), "four.example", node.name)


async def give_files(lab: Lab) -> None:
    """What the example's configuration gives its group, to each node of the lab."""
    files = {
        path: {"data": b64encode((EXAMPLE / name).read_bytes()).decode(), "template": True}
        for path, name in (("/etc/fstab", "fstab"), ("/etc/apache2/envvars", "envvars"))
    }
    patch = {"vars": {"nfs": str(network.ADDRESS.ip)}, "files": files}
    async with connect(lab.socket.parent) as client:
        for machine in lab.machines:
            await client.ask("PATCH", f"/nodes/{machine.mac}", patch)


async def appears(namespace: str, address: str, host: str, node: str) -> None:
    """At once, but for the moment that our file server takes to look at its own disk again."""
    async with asyncio.timeout(20):
        while ask(namespace, address, host)[:2] != (200, f"{host} by {node}"):
            await asyncio.sleep(1)
