"""Every kind of firmware from power-on to the kernel, as the only DHCP server and beside another one.

The image is no real one, so what was loaded is not started: what was fetched is what is looked at.
`test_boot.py` goes on to a running system.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from pxeboot.cli.client import connect
from pxeboot.errors import PxebootError
from pxeboot.image.library import Library
from pxeboot.lab import network, qemu
from pxeboot.lab.qemu import Firmware
from pxeboot.lab.scenario import Lab, Scenario
from pxeboot.pxe.arch import SNPONLY_X64
from tests.parts import KERNEL, put_image

pytestmark = [pytest.mark.boot, pytest.mark.timeout(120)]

SECONDS = 80.0
"""From power-on; seen are 5 to 15."""


def lack(firmware: Firmware) -> str:
    try:
        network.check()
        qemu.check(firmware)
    except PxebootError as error:
        return f"{error}: {error.hint}"
    return ""


def kinds(*firmware: Firmware) -> list[Any]:
    """Each of them in both modes, skipped where this computer lacks what it needs."""
    return [
        pytest.param(
            kind,
            proxy,
            id=f"{kind}-{'proxy' if proxy else 'dhcp'}",
            marks=pytest.mark.skipif(bool(lack(kind)), reason=lack(kind)),
        )
        for kind in firmware
        for proxy in (False, True)
    ]


@asynccontextmanager
async def switched_on(state_dir: Path, **settings: Any) -> AsyncIterator[Lab]:
    put_image(Library(state_dir / "images"))
    scenario = Scenario(
        state_dir=state_dir, name=f"firmware-{os.getpid()}", nodes=1, memory_mb=512, **settings
    )
    async with Lab(scenario) as lab:
        await lab.power_on()
        yield lab


async def sent(lab: Lab, what: str) -> dict[str, Any]:
    """The machine's boot record once it has been sent all of `what`."""
    record: dict[str, Any] = {}
    try:
        async with asyncio.timeout(SECONDS), connect(lab.socket.parent) as client:
            while what not in record.get("sent", {}):
                boots = (await client.ask("GET", "/nodes/node1"))["boots"]
                record = boots[0] if boots else {}
                await asyncio.sleep(0.2)
    except TimeoutError:
        pytest.fail(f"never sent {what}; {record}; console: {lab.machines[0].console_log}")
    return record


LOADED_BY = {Firmware.UEFI_PXE: "tftp snponly.efi", Firmware.UEFI_HTTP: "http snponly.efi"}


@pytest.mark.parametrize(
    ("firmware", "proxy"), kinds(Firmware.BIOS, Firmware.UEFI, Firmware.UEFI_PXE, Firmware.UEFI_HTTP)
)
async def test_firmware_gets_as_far_as_the_kernel(firmware: Firmware, proxy: bool, tmp_path: Path) -> None:
    async with switched_on(tmp_path, firmware=firmware, proxy=proxy) as lab:
        boot = await sent(lab, "http kernel")
    expected = ["discover", "address", "script", "kernel"]
    if firmware in LOADED_BY:
        expected.insert(2, "loader")
        assert boot["sent"][LOADED_BY[firmware]] >= SNPONLY_X64.path.stat().st_size
    assert [stage for stage in boot["reached"] if stage != "initrd"] == expected
    assert boot["sent"]["http kernel"] % len(KERNEL) == 0
    assert IPv4Address(boot["address"]) in network.ADDRESS.network
    leases = (tmp_path / "lab" / lab.scenario.name / "server.log").read_text()
    assert ("offered 10.77.0." in leases) is not proxy


@pytest.mark.parametrize(("firmware", "proxy"), kinds(Firmware.ARM64))
async def test_arm64_firmware_loads_the_operators_loader(
    firmware: Firmware, proxy: bool, tmp_path: Path
) -> None:
    loader = tmp_path / "arm64.efi"
    loader.write_bytes(b"MZ" + bytes(200_000))
    async with switched_on(tmp_path, firmware=firmware, proxy=proxy, loaders={"arm64-uefi": loader}) as lab:
        boot = await sent(lab, "tftp arm64.efi")
    assert list(boot["reached"]) == ["discover", "address", "loader"]
    assert boot["sent"]["tftp arm64.efi"] >= loader.stat().st_size


@pytest.mark.parametrize(("firmware", "proxy"), kinds(Firmware.ARM64))
async def test_firmware_without_a_loader_is_met_with_silence(
    firmware: Firmware, proxy: bool, tmp_path: Path
) -> None:
    async with switched_on(tmp_path, firmware=firmware, proxy=proxy) as lab:
        async with asyncio.timeout(SECONDS):
            while "no loader for arm64 UEFI" not in lab.server_log.read_text():
                await asyncio.sleep(0.2)
        assert '[loaders] arm64-uefi = "/path/ipxe.efi"' in lab.server_log.read_text()
        assert "offered" not in lab.server_log.read_text()
