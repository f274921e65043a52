"""One virtual machine with real firmware and nothing but a network card to boot from."""

import asyncio
import json
import shutil
import uuid
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel

from pxeboot.errors import PxebootError
from pxeboot.mac import Mac

NIC_ROMS = Path("/usr/lib/ipxe/qemu")

RUN_FOLDER = "run"

MEMORY_MB = 1024
"""Holds the example image in RAM (compressed, in a tmpfs), its overlay, and Apache with PHP."""

REBOOT_MILLISECONDS = 5000
"""How long SeaBIOS waits after a failed network boot before it starts over, as servers' firmware does."""

QMP_TIMEOUT_SECONDS = 5.0

# Names of machines seed their SMBIOS UUIDs, so that a lab's machines are the same ones in each run.
_UUID_SPACE = uuid.UUID("5f0c2a53-8a5c-4f0e-9d9c-7be6b0a0c0de")


class Firmware(StrEnum):
    """What a machine starts with."""

    BIOS = "bios"
    UEFI = "uefi"
    UEFI_PXE = "uefi-pxe"
    UEFI_HTTP = "uefi-http"
    ARM64 = "arm64"


@dataclass(frozen=True, slots=True)
class Board:
    """One row: what stands behind a kind of firmware, and the Debian packages that have it."""

    words: str
    nic_rom: bool
    """iPXE in the network card's ROM, in place of what the firmware itself has."""
    emulator: str = "qemu-system-x86_64"
    package: str = "qemu-system-x86"
    machine: str = "q35,graphics=off"
    code: Path | None = None
    """UEFI in flash memory; None for SeaBIOS, which QEMU has with it."""
    variables: Path = Path()
    """UEFI's variables as they come from the factory."""
    code_package: str = "ovmf"
    switches: tuple[str, ...] = ()
    """OVMF's own, through fw_cfg."""


_OVMF = Path("/usr/share/OVMF")
_AAVMF = Path("/usr/share/AAVMF")
_UEFI = Board(
    words="UEFI (OVMF, iPXE in the network card)",
    nic_rom=True,
    code=_OVMF / "OVMF_CODE_4M.fd",
    variables=_OVMF / "OVMF_VARS_4M.fd",
)

BOARDS = {
    Firmware.BIOS: Board(words="BIOS (SeaBIOS, iPXE in the network card)", nic_rom=True),
    Firmware.UEFI: _UEFI,
    Firmware.UEFI_PXE: replace(_UEFI, words="UEFI (OVMF, its own PXE)", nic_rom=False),
    Firmware.UEFI_HTTP: replace(
        _UEFI,
        words="UEFI (OVMF, its own HTTP Boot)",
        nic_rom=False,
        switches=("IPv4PXESupport", "IPv6PXESupport"),
    ),
    Firmware.ARM64: Board(
        words="arm64 UEFI (its own PXE)",
        nic_rom=False,
        emulator="qemu-system-aarch64",
        package="qemu-system-arm",
        machine="virt",
        code=_AAVMF / "AAVMF_CODE.fd",
        variables=_AAVMF / "AAVMF_VARS.fd",
        code_package="qemu-efi-aarch64",
    ),
}


class Machine(BaseModel, frozen=True, extra="forbid"):
    """What one virtual machine is made of, and where its files are."""

    name: str
    mac: Mac
    tap: str
    folder: Path
    """Its logs; what must go with the machine (sockets, UEFI variables) is in `run` below."""
    firmware: Firmware = Firmware.BIOS
    memory_mb: int = MEMORY_MB

    @property
    def board(self) -> Board:
        """What its firmware needs."""
        return BOARDS[self.firmware]

    @property
    def uuid(self) -> uuid.UUID:
        """The SMBIOS UUID, which PXE clients send as DHCP option 97."""
        return uuid.uuid5(_UUID_SPACE, self.mac)

    @property
    def console_log(self) -> Path:
        """Everything the serial console ever said."""
        return self.folder / f"{self.name}.console.log"

    @property
    def console_socket(self) -> Path:
        """Unix socket of the serial console; one client at a time."""
        return self.folder / RUN_FOLDER / f"{self.name}.console"

    @property
    def monitor_socket(self) -> Path:
        """Unix socket that speaks QMP, for `command`."""
        return self.folder / RUN_FOLDER / f"{self.name}.qmp"

    @property
    def output_log(self) -> Path:
        """What QEMU itself prints: why it did not start."""
        return self.folder / f"{self.name}.qemu.log"

    @property
    def variables(self) -> Path:
        """This machine's own copy of the UEFI variables."""
        return self.folder / RUN_FOLDER / f"{self.name}.vars.fd"


def command_line(machine: Machine) -> list[str]:
    """QEMU's arguments for `machine`, the program first.

    Always emulated (TCG): a hypervisor below us may offer KVM that cannot run firmware. virtio-rng, as OVMF
    starts no network boot without a source of random numbers. `-no-reboot` is absent: nodes may restart.
    """
    return [
        *(machine.board.emulator, "-name", machine.name, "-uuid", str(machine.uuid)),
        *("-machine", machine.board.machine, "-accel", "tcg,tb-size=256", "-cpu", "max", "-smp", "1"),
        *("-m", str(machine.memory_mb), "-nodefaults", "-no-user-config", "-display", "none", "-vga", "none"),
        *("-netdev", f"tap,id=net,ifname={machine.tap},script=no,downscript=no"),
        *("-device", _network_card(machine)),
        *("-device", "virtio-rng-pci"),
        *("-chardev", f"socket,id=console,path={_escape(machine.console_socket)},server=on,wait=off"
          f",logfile={_escape(machine.console_log)},logappend=off"),
        *("-serial", "chardev:console"),
        *("-qmp", f"unix:{_escape(machine.monitor_socket)},server=on,wait=off"),
        *_firmware(machine),
    ]  # fmt: skip


def check(firmware: Firmware) -> None:
    """Raises PxebootError naming the Debian package that is missing for such a machine."""
    board = BOARDS[firmware]
    if shutil.which(board.emulator) is None:
        raise _missing(board.emulator, board.package)
    if board.nic_rom and not NIC_ROMS.is_dir():
        raise _missing(str(NIC_ROMS), "ipxe-qemu")
    if board.code is not None and not board.code.exists():
        raise _missing(str(board.code), board.code_package)


def prepare(machine: Machine) -> None:
    """Make its folders and, for UEFI, its variables as they come from the factory."""
    machine.console_socket.parent.mkdir(parents=True, exist_ok=True)
    if machine.board.code is not None:
        shutil.copyfile(machine.board.variables, machine.variables)


async def command(machine: Machine, name: str) -> None:
    """Have QEMU's monitor execute `name`: "system_reset" (the reset button), "quit" (pull the plug).

    Raises PxebootError when the machine does not run or refuses. Source: QEMU's QMP reference.
    """
    try:
        async with asyncio.timeout(QMP_TIMEOUT_SECONDS):
            await _converse(machine.monitor_socket, name)
    except (OSError, TimeoutError) as error:
        raise PxebootError(f"{machine.name}: no answer from its monitor", "see: pxeboot lab run") from error


async def _converse(socket: Path, name: str) -> None:
    reader, writer = await asyncio.open_unix_connection(str(socket))
    try:
        await reader.readline()  # the greeting; commands are refused until capabilities are settled
        for execute in ("qmp_capabilities", name):
            writer.write(json.dumps({"execute": execute}).encode() + b"\n")
            await _reply(reader, execute)
    finally:
        writer.close()


async def _reply(reader: asyncio.StreamReader, execute: str) -> None:
    """Read until the answer to `execute`; asynchronous events may come before it."""
    while line := await reader.readline():
        answer = json.loads(line)
        if "error" in answer:
            raise PxebootError(f"QEMU refused {execute}: {answer['error']['desc']}")
        if "return" in answer:
            return
    raise ConnectionResetError("QEMU closed its monitor")


def _network_card(machine: Machine) -> str:
    rom = "" if machine.board.nic_rom else ",romfile="
    return f"virtio-net-pci,netdev=net,mac={machine.mac},bootindex=1{rom}"


def _firmware(machine: Machine) -> list[str]:
    code = machine.board.code
    if code is None:
        return ["-boot", f"order=n,strict=on,reboot-timeout={REBOOT_MILLISECONDS}"]
    return [
        *("-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={_escape(code)}"),
        *("-drive", f"if=pflash,unit=1,format=raw,file={_escape(machine.variables)}"),
        *(word for switch in machine.board.switches
          for word in ("-fw_cfg", f"name=opt/org.tianocore/{switch},string=n")),
    ]  # fmt: skip


def _escape(path: Path) -> str:
    """A comma ends a value in QEMU's options unless it is doubled."""
    return str(path).replace(",", ",,")


def _missing(what: str, package: str) -> PxebootError:
    return PxebootError(f"{what} is missing", f"install it: apt-get install {package}")
