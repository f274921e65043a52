"""The TFTP clients of U-Boot, iPXE, UEFI's shell and GRUB, in QEMU: files of every size around a block.

Each says in its own way what it has got: U-Boot by CRC, GRUB by SHA-256, the shell by writing it to a disk;
and of iPXE, which can do none of that, the memory is looked through.
"""

import asyncio
import contextlib
import hashlib
import mmap
import os
import random
import re
import shutil
import subprocess
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pxeboot.lab import network
from pxeboot.tftp.content import Content
from pxeboot.tftp.folder import Folder
from pxeboot.tftp.server import TftpServer, TransferRecord
from pxeboot.tftp.transfer import TftpLimits
from tests.lab.conditions import needs_emulator, needs_network

RELEASE = bool(os.environ.get("PXEBOOT_RELEASE"))
HUNDRED_MB = 100 * 2**20
LARGE = HUNDRED_MB if RELEASE else 4 * 2**20
"""In lock step an emulated machine takes minutes for the 100 MB that U-Boot reads in windows each time."""
SOME = 2**16
"""UEFI looks for packets 100 times a second, and gets one each time in lock step."""
SECONDS = 900.0 if RELEASE else 100.0
"""For a machine, from power-on to its last word."""

pytestmark = [pytest.mark.boot, needs_network, needs_emulator, pytest.mark.timeout(int(SECONDS) + 60)]

MACHINE = "10.77.0.50"
SERVER = str(network.ADDRESS.ip)
TAP = "tap0"
END = "all is here"

IPXE = Path("/usr/lib/ipxe/ipxe.lkrn")
UBOOT = Path("/usr/lib/u-boot/qemu_arm64/u-boot.bin")
OVMF = Path("/usr/share/OVMF/OVMF_CODE_4M.fd")
OVMF_VARIABLES = Path("/usr/share/OVMF/OVMF_VARS_4M.fd")
GRUB_MODULES = (
    *("efinet", "tftp", "hashsum", "gcry_sha256", "echo", "serial", "terminal", "normal", "halt"),
)
ARM = ("qemu-system-aarch64", "-machine", "virt", "-cpu", "cortex-a57", "-m", "512")


def needs(*packages: tuple[str, Path]) -> pytest.MarkDecorator:
    """Skips, naming what must be installed, where a file is missing."""
    missing = " ".join(package for package, path in packages if not path.exists())
    return pytest.mark.skipif(bool(missing), reason=f"missing; install it: apt-get install {missing}")


def sizes(block_size: int, large: int) -> tuple[int, ...]:
    return (0, 1, block_size - 1, block_size, block_size + 1, large)


def content(size: int) -> bytes:
    return random.Random(size).randbytes(size)


class Site:
    """The server in a network of its own, and what it sent."""

    def __init__(self, folder: Path, wanted: set[int]) -> None:
        self.folder = folder
        self.namespace = f"pxeboot-tftp-{os.getpid()}"
        self.root = folder / "root"
        self.root.mkdir()
        for size in wanted:
            (self.root / f"file{size}").write_bytes(content(size))
        self.records: list[TransferRecord] = []

    def sent(self, block_size: int) -> dict[str, int]:
        """The bytes of each file that was sent to its end, in blocks of that size."""
        return {
            record.name: record.bytes
            for record in self.records
            if record.result == "done" and record.granted.get("blksize", 512) == block_size
        }

    async def serve(self, ready: threading.Event, stop: asyncio.Event) -> None:
        files = Folder(self.root)

        async def find(name: str, peer: str) -> Content | None:
            return await asyncio.to_thread(files.open, name)

        server = TftpServer(SERVER, find, TftpLimits(), self.records.append)
        await server.start()
        ready.set()
        await stop.wait()
        await server.close()

    @contextmanager
    def machine(self, *kind: str) -> Iterator["Machine"]:
        """One with a network card, switched on, until the block ends."""
        command = [*kind, "-accel", "tcg,tb-size=256", "-smp", "1", "-display", "none", "-no-reboot",
                   "-nodefaults", "-no-user-config", "-serial", "stdio", "-device", "virtio-rng-pci",
                   "-netdev", f"tap,id=net,ifname={TAP},script=no,downscript=no",
                   "-device", "virtio-net-pci,netdev=net,romfile="]  # fmt: skip
        console = self.folder / "console"

        def start() -> "subprocess.Popen[bytes]":
            with console.open("wb") as output:
                return subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT
                )

        process = network.in_namespace(self.namespace, start)
        try:
            yield Machine(process, console)
        finally:
            process.kill()
            process.communicate()


class Machine:
    """What a running machine says on its console, and what is typed there."""

    def __init__(self, process: "subprocess.Popen[bytes]", console: Path) -> None:
        self.process = process
        self.console = console
        self.seen = 0
        self.deadline = time.monotonic() + SECONDS

    @property
    def said(self) -> str:
        return self.console.read_bytes().decode(errors="replace")

    def wait_for(self, text: str) -> None:
        """Until it says so, after what was waited for last."""
        while (found := self.said.find(text, self.seen)) < 0:
            assert self.process.poll() is None, f"it has ended; console: {self.said[-2000:]}"
            assert time.monotonic() < self.deadline, f"never said {text!r}; console: {self.said[-2000:]}"
            time.sleep(0.05)
        self.seen = found + len(text)

    def type(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()


@contextmanager
def site(folder: Path, *wanted: int) -> Iterator[Site]:
    made = Site(folder, {*wanted})
    ready, stop, loop = threading.Event(), asyncio.Event(), asyncio.new_event_loop()
    network.create(made.namespace, [TAP])
    serving = threading.Thread(
        target=network.in_namespace,
        args=(made.namespace, lambda: loop.run_until_complete(made.serve(ready, stop))),
    )
    serving.start()
    try:
        assert ready.wait(10)
        yield made
    finally:
        loop.call_soon_threadsafe(stop.set)
        serving.join()
        loop.close()
        network.delete(made.namespace)


@needs(("u-boot-qemu", UBOOT), ("qemu-system-arm", Path("/usr/bin/qemu-system-aarch64")))
def test_u_boot_reads_every_size_in_windows_and_without(tmp_path: Path) -> None:
    alone, in_windows = sizes(1468, LARGE), (1469, HUNDRED_MB)
    with site(tmp_path, *alone, *in_windows) as made, made.machine(*ARM, "-bios", str(UBOOT)) as machine:
        machine.wait_for("stop autoboot")
        machine.type("")
        machine.wait_for("\n=> ")
        machine.type(f"setenv ipaddr {MACHINE}; setenv serverip {SERVER}")
        for window, wanted in ((1, alone), (16, in_windows)):
            machine.wait_for("\n=> ")
            machine.type(f"setenv tftpwindowsize {window}")
            for size in wanted:
                machine.wait_for("\n=> ")
                machine.type(f"tftpboot 0x42000000 file{size}; crc32 0x42000000 0x${{filesize}}")
        machine.wait_for("\n=> ")
        sums = re.findall(r"==> ([0-9a-f]{8})", machine.said)
    assert sums == [f"{zlib.crc32(content(size)):08x}" for size in (*alone, *in_windows)]
    assert made.sent(1468) == {f"file{size}": size for size in (*alone, *in_windows)}
    assert {record.granted.get("windowsize", 1) for record in made.records} == {1, 16}


@needs(("ipxe", IPXE))
def test_ipxe_reads_every_size(tmp_path: Path) -> None:
    memory, script = tmp_path / "memory", tmp_path / "script"
    wanted = sizes(1432, LARGE)
    lines = ["#!ipxe", "ifopen net0", f"set net0/ip {MACHINE}", "set net0/netmask 255.255.255.0"]
    lines += [f"imgfetch --name file{size} tftp://{SERVER}/file{size}" for size in wanted]
    script.write_text("\n".join([*lines, "imgstat", f"echo {END}", "shell", ""]))
    kind = ("qemu-system-x86_64", "-machine", "q35,graphics=off,memory-backend=ram", "-cpu", "max",
            "-m", "512", "-object", f"memory-backend-file,id=ram,size=512M,mem-path={memory},share=on",
            "-kernel", str(IPXE), "-initrd", str(script))  # fmt: skip
    with site(tmp_path, *wanted) as made, made.machine(*kind) as machine:
        machine.wait_for(END)
        with memory.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as ram:
            there = [size for size in wanted if ram.find(content(size)) >= 0]
        told = [int(size) for size in re.findall(r"file\d+ : (\d+) bytes", machine.said)]
    assert (there, told) == ([*wanted], [*wanted])
    # Of an empty file the OACK, which says that it has 0 bytes, is enough for it: it acknowledges nothing, so
    # that whether its end has been told depends on how long the others took.
    sent = {name: size for name, size in made.sent(1432).items() if size}
    assert sent == {f"file{size}": size for size in wanted if size}


def make_disk(disk: Path, files: dict[str, Path], room: int) -> None:
    subprocess.run(
        ["mkfs.vfat", "-C", str(disk), str(40_000 + room // 1024)], check=True, capture_output=True
    )
    for name, path in files.items():
        subprocess.run(["mcopy", "-i", str(disk), str(path), f"::{name}"], check=True)


def make_grub(folder: Path, wanted: tuple[int, ...]) -> Path:
    lines = ["serial --unit=0", "terminal_output serial", f"net_add_addr lan efinet0 {MACHINE}"]
    lines += [f"sha256sum (tftp,{SERVER})/file{size}" for size in wanted]
    (folder / "grub.cfg").write_text("\n".join([*lines, f"echo {END}", "halt", ""]))
    made = folder / "grub.efi"
    command = ["grub-mkimage", "-O", "x86_64-efi", "-p", "/", "-c", str(folder / "grub.cfg")]
    subprocess.run([*command, "-o", str(made), *GRUB_MODULES], check=True)
    return made


@needs(
    ("ovmf", OVMF),
    ("dosfstools", Path("/usr/sbin/mkfs.vfat")),
    ("mtools", Path("/usr/bin/mcopy")),
    ("grub-common", Path("/usr/bin/grub-mkimage")),
    ("grub-efi-amd64-bin", Path("/usr/lib/grub/x86_64-efi/hashsum.mod")),
)
def test_the_uefi_shell_and_then_grub_read_every_size(tmp_path: Path) -> None:
    """One start for both: OVMF's shell in lock step and in windows, then GRUB from the same disk."""
    # Of an empty file the shell divides by the size, to show how far it is, and the machine stands still.
    lock_step, in_windows, by_grub = sizes(512, SOME)[1:], sizes(1428, LARGE)[1:], sizes(1024, LARGE)
    lines = ["@echo -off", "fs0:", "connect -r"]  # the network too, which is not what it was started from
    lines += [f"ifconfig -s eth0 static {MACHINE} 255.255.255.0 {SERVER}", "stall 1000000"]
    lines += [f"tftp {SERVER} file{size} a{size}" for size in lock_step]
    lines += [f"tftp -s 1428 -w 16 {SERVER} file{size} b{size}" for size in in_windows]
    startup, disk, variables = tmp_path / "startup.nsh", tmp_path / "disk", tmp_path / "variables"
    startup.write_text("\r\n".join([*lines, "grub.efi", ""]))
    grub = make_grub(tmp_path, by_grub)
    make_disk(disk, {"startup.nsh": startup, "grub.efi": grub}, 2 * LARGE)
    shutil.copyfile(OVMF_VARIABLES, variables)
    kind = ("qemu-system-x86_64", "-machine", "q35,graphics=off", "-cpu", "max", "-m", "1024",
            "-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={OVMF}",
            "-drive", f"if=pflash,unit=1,format=raw,file={variables}",
            "-drive", f"if=none,id=disk,format=raw,file={disk}",
            "-device", "virtio-blk-pci,drive=disk,bootindex=1")  # fmt: skip
    with site(tmp_path, *lock_step, *in_windows, *by_grub) as made, made.machine(*kind) as machine:
        machine.wait_for("seconds to skip")  # its script, which any other key begins at once
        machine.type("")
        machine.wait_for(END)
        sums = re.findall(r"[0-9a-f]{64}", machine.said)
        with contextlib.suppress(subprocess.TimeoutExpired):
            machine.process.wait(10)  # the disk is whole when it is off
    got = tmp_path / "got"
    got.mkdir()
    subprocess.run(["mcopy", "-i", str(disk), "::a*", "::b*", str(got)], check=True)
    for letter, wanted in (("a", lock_step), ("b", in_windows)):
        for size in wanted:
            assert (got / f"{letter}{size}").read_bytes() == content(size), f"{letter}{size}"
    assert sums == [hashlib.sha256(content(size)).hexdigest() for size in by_grub]
    # GRUB closes an empty file before any block is sent: the OACK has said that there is none.
    for block_size, wanted in ((512, lock_step), (1428, in_windows), (1024, by_grub[1:])):
        assert made.sent(block_size) == {f"file{size}": size for size in wanted}
