import asyncio
import subprocess
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from pxeboot.errors import PxebootError
from pxeboot.lab import qemu
from pxeboot.lab.qemu import Firmware, Machine
from pxeboot.mac import Mac

from .conditions import needs_emulator


def machine(folder: Path = Path("/lab"), **more: object) -> Machine:
    known = {"name": "node1", "mac": Mac("52:54:00:77:00:01"), "tap": "tap1", "folder": folder}
    return Machine.model_validate(known | more)


def option(arguments: list[str], name: str) -> list[str]:
    return [value for key, value in pairwise(arguments) if key == name]


def test_a_machine_has_one_card_on_its_tap_and_no_disk() -> None:
    arguments = qemu.command_line(machine())
    assert option(arguments, "-netdev") == ["tap,id=net,ifname=tap1,script=no,downscript=no"]
    assert option(arguments, "-device") == [
        "virtio-net-pci,netdev=net,mac=52:54:00:77:00:01,bootindex=1",
        "virtio-rng-pci",
    ]
    assert option(arguments, "-drive") == []


def test_it_is_always_emulated_and_may_restart() -> None:
    arguments = qemu.command_line(machine())
    assert option(arguments, "-accel")[0].startswith("tcg")
    assert "-no-reboot" not in arguments


def test_memory_is_given_in_megabytes() -> None:
    assert option(qemu.command_line(machine(memory_mb=512)), "-m") == ["512"]


def test_bios_starts_over_when_the_network_boot_fails() -> None:
    assert option(qemu.command_line(machine()), "-boot") == ["order=n,strict=on,reboot-timeout=5000"]


def test_uefi_has_shared_code_and_variables_of_its_own() -> None:
    code, variables = option(qemu.command_line(machine(firmware=Firmware.UEFI)), "-drive")
    assert "readonly=on" in code
    assert code.endswith("/OVMF_CODE_4M.fd")
    assert "readonly" not in variables
    assert variables.endswith("/lab/run/node1.vars.fd")


def test_without_rom_the_card_has_an_empty_romfile() -> None:
    card = option(qemu.command_line(machine(firmware=Firmware.UEFI_PXE)), "-device")[0]
    assert card.endswith(",romfile=")


def test_a_comma_in_a_path_does_not_end_the_value() -> None:
    assert "path=/a,,b/run/node1.console," in " ".join(qemu.command_line(machine(Path("/a,b"))))


def test_machines_have_different_uuids_and_each_the_same_in_every_run() -> None:
    one, other = machine(), machine(mac="52:54:00:77:00:02")
    assert one.uuid == machine().uuid != other.uuid


def test_http_boot_has_the_firmwares_pxe_switched_off() -> None:
    switches = option(qemu.command_line(machine(firmware=Firmware.UEFI_HTTP)), "-fw_cfg")
    assert "name=opt/org.tianocore/IPv4PXESupport,string=n" in switches
    assert not option(qemu.command_line(machine(firmware=Firmware.UEFI_PXE)), "-fw_cfg")


def test_arm64_has_its_own_emulator_board_and_firmware() -> None:
    arguments = qemu.command_line(machine(firmware=Firmware.ARM64))
    assert (arguments[0], option(arguments, "-machine")) == ("qemu-system-aarch64", ["virt"])
    assert option(arguments, "-drive")[0].endswith("/AAVMF_CODE.fd")


@pytest.mark.parametrize(
    ("lacking", "firmware", "package"),
    [
        ("emulator", Firmware.BIOS, "qemu-system-x86"),
        ("emulator", Firmware.ARM64, "qemu-system-arm"),
        ("roms", Firmware.BIOS, "ipxe-qemu"),
        ("code", Firmware.UEFI, "ovmf"),
        ("code", Firmware.ARM64, "qemu-efi-aarch64"),
    ],
)
def test_a_missing_package_is_named(
    lacking: str, firmware: Firmware, package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    there, absent = tmp_path, tmp_path / "no-such"
    board = replace(
        qemu.BOARDS[firmware],
        emulator="no-such" if lacking == "emulator" else "sh",
        code=absent if lacking == "code" else there,
    )
    monkeypatch.setitem(qemu.BOARDS, firmware, board)
    monkeypatch.setattr(qemu, "NIC_ROMS", absent if lacking == "roms" else there)
    with pytest.raises(PxebootError, match="no-such is missing") as caught:
        qemu.check(firmware)
    assert caught.value.hint == f"install it: apt-get install {package}"


async def test_a_command_to_a_machine_that_is_off_says_so(tmp_path: Path) -> None:
    with pytest.raises(PxebootError, match="node1: no answer"):
        await qemu.command(machine(tmp_path), "quit")


@needs_emulator
async def test_the_monitor_resets_a_machine_and_pulls_its_plug(tmp_path: Path) -> None:
    one = machine(tmp_path, memory_mb=64)
    qemu.prepare(one)
    # The tap needs a namespace; everything else of the command line is started as it is.
    arguments = [value.replace("tap,id=net,ifname=tap1,script=no,downscript=no", "user,id=net,restrict=on")
                 for value in qemu.command_line(one)]  # fmt: skip
    with subprocess.Popen(arguments) as emulator:
        try:
            await _until_exists(one.monitor_socket)
            await qemu.command(one, "system_reset")
            with pytest.raises(PxebootError, match="refused no_such_command"):
                await qemu.command(one, "no_such_command")
            await qemu.command(one, "quit")
            assert emulator.wait(timeout=10) == 0
        finally:
            emulator.kill()


async def _until_exists(path: Path) -> None:
    async with asyncio.timeout(10):
        while not path.exists():
            await asyncio.sleep(0.05)
