"""What a group asks of the initrd's network by kernel arguments, with the real initrd in QEMU.

The frames of its boot network are tagged, which this computer's kernel may not understand: DHCP and HTTP
servers are in a guest of User Mode Linux, on the same bridge.
"""

import hashlib
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pxeboot.image.library import Image
from pxeboot.lab import network, qemu, uml
from pxeboot.lab.qemu import Machine
from pxeboot.mac import Mac
from tests.lab.conditions import needs_emulator, needs_guest, needs_network

pytestmark = [pytest.mark.boot, needs_network, needs_emulator, needs_guest, pytest.mark.timeout(200)]

SECONDS = 120.0
FIRST, SECOND = "52:54:00:77:05:01", "52:54:00:77:05:02"
ROOT = bytes(range(256)) * 4096
SERVER = """
cd "$1"
ip link set lo up
ip link set vec0 up
ip link add link vec0 name vec0.5 type vlan id 5
ip addr add 10.77.5.1/24 dev vec0.5
ip link set vec0.5 up
python3 -m http.server --bind 10.77.5.1 80 &
exec dnsmasq --keep-in-foreground --conf-file=/dev/null --port=0 --no-ping --user=root --pid-file= \\
    --interface=vec0.5 --bind-interfaces --leasefile-ro --dhcp-range=10.77.5.99,10.77.5.99 --log-facility=-
"""
ARGUMENTS = (
    "console=ttyS0 quiet pxeboot.bond=active-backup pxeboot.vlan=5 pxeboot.zram=50%"
    f" BOOTIF=01-{SECOND.replace(':', '-')} pxeboot.name=node1 pxeboot.url=http://10.77.5.1/boot/token"
    f" pxeboot.image={'0' * 64} pxeboot.root={hashlib.sha256(ROOT).hexdigest()} pxeboot.size={len(ROOT)}"
)


@contextmanager
def running(namespace: str, command: list[str], log: Path) -> Iterator[None]:
    """A program in the namespace, with all that it starts."""
    with log.open("wb") as output:
        process = network.in_namespace(
            namespace,
            lambda: subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            ),
        )
    try:
        yield
    finally:
        uml.end(process)


@contextmanager
def machine_and_server(image: Image, folder: Path) -> Iterator[tuple[Machine, uml.Guest]]:
    """A machine with two network cards that starts the image's kernel at once, and the server."""
    namespace = f"pxeboot-test-{os.getpid()}"
    machine = Machine(name="node1", mac=Mac(FIRST), tap="tap1", folder=folder, memory_mb=512)
    (folder / "boot/token").mkdir(parents=True)
    (folder / "boot/token/root").write_bytes(ROOT)
    guest = uml.Guest(
        ("sh", "-euc", SERVER, "sh", str(folder)), folder / "server", folder, 256, "tap0", ("8021q",)
    )
    second_card = (
        *("-netdev", "tap,id=second,ifname=tap2,script=no,downscript=no"),
        *("-device", f"virtio-net-pci,netdev=second,mac={SECOND}"),
    )
    start = ("-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", ARGUMENTS)
    network.create(namespace, ["tap0", "tap1", "tap2"], addresses=())
    try:
        qemu.prepare(machine)
        command = [*qemu.command_line(machine), *second_card, *start]
        with (
            running(namespace, uml.prepare(guest), guest.console_log),
            running(namespace, command, machine.output_log),
        ):
            yield machine, guest
    finally:
        network.delete(namespace)


def test_the_boot_network_is_a_vlan_over_a_bond_and_swap_is_in_compressed_ram(
    image: Image, tmp_path: Path
) -> None:
    with machine_and_server(image, tmp_path) as (machine, guest):
        deadline = time.monotonic() + SECONDS
        while "FAILED" not in (said := read(machine.console_log)):
            assert time.monotonic() < deadline, said + read(guest.console_log) + read(guest.output_log)
            time.sleep(0.1)
        lines = [line.strip().removeprefix("pxeboot: ") for line in said.splitlines() if "pxeboot: " in line]
        assert "network: bond0 (active-backup) of eth1 eth0" in lines
        assert f"network: bond0.5 ({SECOND}) has address 10.77.5.99/24" in lines
        assert next(line for line in lines if line.startswith("swap: ")).endswith(" MB in compressed RAM")
        assert lines[-1] == "FAILED (1 of 5): mount: the image is no SquashFS this kernel reads"
        assert f"DHCPACK(vec0.5) 10.77.5.99 {SECOND}" in read(guest.output_log)


def read(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""
