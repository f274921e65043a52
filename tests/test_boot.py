"""Whole machines in QEMU: firmware, loader, initrd and root, from the real server to a page it serves."""

import asyncio
import hashlib
import os
import re
import shutil
import signal
import subprocess
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyroute2 import IPRoute

from pxeboot.cli.client import connect
from pxeboot.image.library import Image
from pxeboot.lab import network
from pxeboot.lab.qemu import Firmware
from pxeboot.lab.scenario import Lab, Loader, Progress, Scenario
from pxeboot.web.views import NodeView
from tests.conftest import BUILDING
from tests.lab.conditions import needs_emulator, needs_network

pytestmark = [pytest.mark.boot, needs_network, needs_emulator, pytest.mark.timeout(420)]

SECONDS = 240.0
UNREAD = "/usr/bin/php8.2"
"""Megabytes of the root that no boot reads: Apache has PHP as a module."""
OWN_FILES = {
    "vars": {"site": "north"},
    "files": {
        "/var/www/html/own.php": {
            "template": True,
            "data": b64encode(
                b"""$name $address $site
<?php
readfile('/etc/machine-id');
readfile('/etc/ssh/ssh_host_ed25519_key.pub');
printf('%04o %s', fileperms('/etc/ssh/ssh_host_ed25519_key') & 0777, file_get_contents('/etc/hostname'));
"""
            ).decode(),
        },
        "/var/www/html/alone.php": {
            "data": b64encode(
                f"""<?php
$copy = '/var/lib/php/sessions/copy';
copy('{UNREAD}', $copy);
echo hash_file('sha256', $copy), ' ', filesize($copy);
""".encode()
            ).decode(),
        },
    },
}
"""What node1 has for itself: a page of what lies in its root, one that reads and writes there."""


def scenario(state_dir: Path = BUILDING, **settings: Any) -> Scenario:
    return Scenario(
        state_dir=state_dir, name=f"test-{os.getpid()}", timeout_seconds=SECONDS, **{"nodes": 1, **settings}
    )


async def until(lab: Lab, condition: Callable[[NodeView], bool], seconds: float = SECONDS) -> NodeView:
    """The node when the condition holds for the first time."""
    seen: list[Progress] = []
    try:
        async with asyncio.timeout(seconds):
            while True:
                seen = await lab.progress()
                if seen[0].node is not None and condition(seen[0].node):
                    return seen[0].node
                await asyncio.sleep(0.1)
    except TimeoutError:
        pytest.fail(f"still {seen[0].node} after {seconds} s; console: {lab.machines[0].console_log}")


async def asks(lab: Lab, method: str, path: str, body: Any = None) -> Any:
    async with connect(lab.socket.parent) as client:
        return await client.ask(method, path, body)


@pytest.mark.parametrize(
    ("firmware", "https"),
    [pytest.param(Firmware.BIOS, False, id="bios"), pytest.param(Firmware.UEFI, True, id="uefi, https")],
)
async def test_a_bare_machine_becomes_a_ready_node_and_restarts_when_told(
    firmware: Firmware, https: bool, image: Image
) -> None:
    async with Lab(scenario(firmware=firmware, https=https)) as lab:
        await asks(lab, "PATCH", f"/nodes/{lab.machines[0].mac}", OWN_FILES)
        await lab.power_on()
        node = await until(lab, lambda node: node.stage == "ready")
        assert (node.failure, node.image) == ("", image.digest)
        page = await lab.page(str(node.address))
        assert "node1" in page
        assert image.digest in page
        assert "8.2" in page
        (boot,) = (await asks(lab, "GET", "/nodes/node1"))["boots"]
        path = ["discover", "address", "script", "kernel", "initrd", "network", "image", "root", "ready"]
        assert [stage for stage in boot["reached"] if stage in path] == path
        assert boot["sent"]["http root"] == image.manifest.artefacts.root.size
        own = await lab.page(str(node.address), "/own.php")
        key = (await asks(lab, "GET", "/nodes/node1"))["ssh_host_key"]
        assert re.fullmatch(
            rf"node1 {node.address} north\n[0-9a-f]{{32}}\n{re.escape(key)}\n0600 node1\n", own
        )
        await asks(lab, "POST", "/nodes/node1/command", {"command": "reboot"})
        await until(lab, lambda node: node.stage == "rebooting", 20)
        loading = {"kernel", "initrd", "network", "image", "root", "ready"}  # each may pass unseen
        await until(lab, lambda node: node.stage in loading, 120)
        assert len((await asks(lab, "GET", "/nodes/node1"))["boots"]) == 2
        if firmware is Firmware.BIOS:  # once is enough
            node = await until(lab, lambda node: node.stage == "ready")
            assert await lab.page(str(node.address), "/own.php") == own
            await lives_without_the_server(lab, str(node.address), image)


async def lives_without_the_server(lab: Lab, address: str, image: Image) -> None:
    """Stop the server for good; the node reads of its root what nobody has read yet, and writes."""
    assert lab.server is not None
    lab.server.terminate()
    lab.server.wait()
    packed = ("unsquashfs", "-cat", str(image.root), UNREAD.removeprefix("/"))
    content = subprocess.run(packed, check=True, capture_output=True).stdout
    assert await lab.page(address, "/alone.php") == f"{hashlib.sha256(content).hexdigest()} {len(content)}"


async def test_firmware_of_its_own_loads_ipxe_over_tftp(image: Image) -> None:
    async with Lab(scenario(firmware=Firmware.UEFI_PXE)) as lab:
        await lab.power_on()
        await until(lab, lambda node: node.stage == "network")
        (boot,) = (await asks(lab, "GET", "/nodes/node1"))["boots"]
        assert boot["reached"]["loader"] < boot["reached"]["script"]
        assert boot["sent"]["tftp snponly.efi"] > 100_000


async def test_pxelinux_loads_the_kernel(image: Image) -> None:
    async with Lab(scenario(loader=Loader.PXELINUX)) as lab:
        await lab.power_on()
        await until(lab, lambda node: node.stage == "network")
        (boot,) = (await asks(lab, "GET", "/nodes/node1"))["boots"]
        assert boot["loader"] == "PXELINUX"
        assert boot["sent"]["http kernel"] == image.manifest.artefacts.kernel.size
        assert boot["sent"]["tftp lpxelinux.0"] == Path("/usr/lib/PXELINUX/lpxelinux.0").stat().st_size


async def test_a_flipped_byte_is_refused_by_the_node(image: Image, tmp_path: Path) -> None:
    shutil.copytree(BUILDING / "images", tmp_path / "images")
    root = tmp_path / "images" / image.digest / "root.squashfs"
    data = bytearray(root.read_bytes())
    data[len(data) // 2] ^= 1
    root.write_bytes(data)
    async with Lab(scenario(tmp_path)) as lab:
        await lab.power_on()
        node = await until(lab, lambda node: node.stage in ("failed", "root", "ready"))
        assert node.stage == "failed"
        assert node.failure.startswith(f"digest: expected {image.manifest.artefacts.root.sha256[:12]}")


async def test_too_little_memory_is_said_with_both_numbers(image: Image) -> None:
    async with Lab(scenario(memory_mb=224)) as lab:
        await lab.power_on()
        node = await until(lab, lambda node: node.stage in ("failed", "image", "ready"))
        assert node.stage == "failed"
        needed = -(-image.manifest.artefacts.root.size // 2**20)
        assert node.failure.startswith(f"memory: image needs {needed} MB and ")
        assert node.failure.endswith(" MB available")


async def test_a_download_survives_kill_9_of_the_server(image: Image) -> None:
    async with Lab(scenario()) as lab:
        network.in_namespace(lab.namespace, lambda: slow_down(lab.machines[0].tap))
        await lab.power_on()
        size = image.manifest.artefacts.root.size
        node = await until(lab, lambda node: node.stage == "image" and node.done > size // 10)
        assert node.done < size * 9 // 10
        assert lab.server is not None
        lab.server.send_signal(signal.SIGKILL)
        lab.server.wait()
        await asyncio.sleep(2)
        await lab.start_server()
        await until(lab, lambda node: node.stage == "ready")
        (boot,) = (await asks(lab, "GET", "/nodes/node1"))["boots"]
        assert 0 < boot["sent"]["http root"] <= size - size // 10  # the rest, not all of it again


async def test_machines_join_their_service_one_is_destroyed_leaves_and_comes_back(image: Image) -> None:
    """Direct routing: the nodes' agents have the virtual address to set up, and to hide it from ARP."""
    async with Lab(scenario(nodes=2, forward="dr")) as lab:
        await lab.power_on()
        async for _ in lab.follow():
            pass  # until both are in service
        assert await answered_in_turn(lab)
        lost, kept = lab.machines
        lab.destroy(lost)
        await until_weights(lab, {lost.name: 0, kept.name: 100}, 30)
        assert await lab.visit(4) == [kept.name] * 4
        lab.switch_on(lost)
        await until_weights(lab, {lost.name: 100, kept.name: 100})
        assert await answered_in_turn(lab)


async def answered_in_turn(lab: Lab) -> bool:
    """Whether the machines answer one after the other, round and round."""
    first, second, *again = await lab.visit(4)
    return {first, second} == {machine.name for machine in lab.machines} and again == [first, second]


async def until_weights(lab: Lab, wanted: dict[str, int], seconds: float = SECONDS) -> None:
    """Wait until the service's servers have these weights."""
    weights: dict[str, int] = {}
    try:
        async with asyncio.timeout(seconds):
            while weights != wanted:
                await asyncio.sleep(0.2)
                service = await asks(lab, "GET", "/services/www")
                weights = {server["node"]: server["weight"] for server in service["servers"]}
    except TimeoutError:
        pytest.fail(f"still {weights} after {seconds} s; {lab.server_log}")


def slow_down(tap: str) -> None:
    """10 MB/s towards the machine, so that there is a middle of the download to meet it in."""
    with IPRoute() as links:
        index = links.link_lookup(ifname=tap)[0]
        links.tc("add", "tbf", index, 0, rate="80mbit", burst=65536, latency="200ms")
