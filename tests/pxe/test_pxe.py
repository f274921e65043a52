"""Who asks, what it boots, and the words in which it is told."""

from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxeboot.config import GroupConfig
from pxeboot.dhcp import packet
from pxeboot.dhcp.packet import Packet
from pxeboot.errors import PxebootError
from pxeboot.mac import Mac
from pxeboot.pxe.arch import ARCHITECTURES, Loaders, choose_loaders
from pxeboot.pxe.client import Client, identify
from pxeboot.pxe.policy import decide
from pxeboot.pxe.script import (
    Instructions,
    grub_config,
    ipxe_refusal,
    ipxe_script,
    kernel_command_line,
    pxelinux_config,
    pxelinux_name,
)

DATA = Path(__file__).parent.parent / "data"
URL = "http://10.77.0.1"
LOADERS = choose_loaders({})
WEB = GroupConfig(name="web", image="web", match=("*",))
LINUX = GroupConfig(name="web", image="web", match=("*",), loader="pxelinux")
MAC = Mac("52:54:00:77:00:01")
TOLD = Instructions(
    mac=MAC,
    name="web1",
    url=f"{URL}/boot/TOKEN",
    script_url=f"{URL}/ipxe/{MAC}",
    image="ab" * 32,
    root_sha256="cd" * 32,
    root_size=60_000_000,
    kernel_args="console=ttyS0",
    address="10.77.0.100/24",
    router=IPv4Address("10.77.0.1"),
    dns=(IPv4Address("10.77.0.1"), IPv4Address("10.77.0.2")),
)


def captured(name: str) -> Client:
    return identify(packet.decode((DATA / f"{name}.bin").read_bytes()))


@pytest.mark.parametrize(
    ("name", "architecture", "ipxe", "capable"),
    [
        ("discover-ipxe-bios", 0, True, True),
        ("discover-ipxe-efi", 7, True, True),
        ("discover-ipxe-snponly", 7, True, True),
        ("discover-ovmf", 7, False, False),
        ("discover-ovmf-http", 16, False, False),
        ("discover-udhcpc", None, False, False),
    ],
)
def test_real_clients_are_told_apart(name: str, architecture: int | None, ipxe: bool, capable: bool) -> None:
    client = captured(name)
    assert (client.architecture, client.is_ipxe, client.is_capable_ipxe) == (architecture, ipxe, capable)
    assert client.mac == MAC


def test_a_machine_keeps_its_uuid_through_firmware_and_ipxe() -> None:
    assert captured("discover-ovmf").uuid is not None
    assert captured("discover-ovmf-http").uuid is not None
    assert captured("discover-udhcpc").uuid is None


@given(st.dictionaries(st.sampled_from([60, 77, 93, 97, 175]), st.binary(max_size=40)))
def test_any_options_identify_somebody(codes: dict[int, bytes]) -> None:
    client = identify(Packet(1, 1, b"\x52\x54\0\0\0\1", options=codes))
    assert client.firmware
    decide(client, WEB, URL, LOADERS)


@pytest.mark.parametrize(
    ("name", "group", "bootfile"),
    [
        ("discover-ipxe-bios", WEB, f"{URL}/ipxe/{MAC}"),
        ("discover-ipxe-efi", WEB, f"{URL}/ipxe/{MAC}"),
        ("discover-ipxe-snponly", WEB, f"{URL}/ipxe/{MAC}"),
        ("discover-ovmf", WEB, "snponly.efi"),
        ("discover-ovmf-http", WEB, f"{URL}/loader/snponly.efi"),
        ("discover-udhcpc", WEB, ""),
        ("discover-ipxe-bios", LINUX, "lpxelinux.0"),
        ("discover-ovmf", LINUX, "snponly.efi"),
        ("discover-ipxe-efi", LINUX, f"{URL}/ipxe/{MAC}"),
        ("discover-ipxe-bios", None, ""),
    ],
)
def test_what_a_client_boots(name: str, group: GroupConfig | None, bootfile: str) -> None:
    assert decide(captured(name), group, URL, LOADERS).bootfile == bootfile


def test_plain_bios_firmware_gets_undionly() -> None:
    client = Client(MAC, architecture=0, vendor_class="PXEClient:Arch:00000:UNDI:002001")
    assert decide(client, WEB, URL, LOADERS).bootfile == "undionly.kpxe"


def test_an_ipxe_without_http_gets_a_better_one() -> None:
    client = replace(captured("discover-ipxe-bios"), features=frozenset({24}))
    assert decide(client, WEB, URL, LOADERS).bootfile == "undionly.kpxe"


@pytest.mark.parametrize("code", [10, 11, 19, 27, 99])
def test_an_architecture_without_loader_is_met_with_silence_and_the_remedy(code: int) -> None:
    kind = "HTTPClient" if code == 19 else "PXEClient"
    decision = decide(Client(MAC, architecture=code, vendor_class=kind), WEB, URL, LOADERS)
    assert (decision.bootfile, decision.ignored) == ("", True)
    key = {10: "arm32-uefi", 11: "arm64-uefi", 19: "arm64-uefi", 27: "riscv64-uefi", 99: "99"}[code]
    assert f'[loaders] {key} = "/path/ipxe.efi"' in str(decision)


def test_a_loader_that_is_not_installed_is_named_with_its_package() -> None:
    without = replace(LOADERS, missing=frozenset({"snponly.efi"}))
    decision = decide(captured("discover-ovmf"), WEB, URL, without)
    assert (decision.ignored, str(decision)) == (
        True,
        "ignored (loader snponly.efi is missing: apt-get install ipxe)",
    )
    assert decide(captured("discover-ipxe-efi"), WEB, URL, without).bootfile.startswith(URL)


def test_the_operators_loader_serves_pxe_and_http_boot_of_its_platform() -> None:
    own = choose_loaders({"arm64-uefi": Path("/srv/arm64.efi"), "16": Path("/srv/big.efi")})
    for code, kind, bootfile in (
        (11, "PXEClient", "arm64.efi"),
        (19, "HTTPClient", f"{URL}/loader/arm64.efi"),
        (7, "PXEClient", "snponly.efi"),
        (16, "HTTPClient", f"{URL}/loader/big.efi"),
    ):
        client = Client(MAC, architecture=code, vendor_class=kind)
        assert decide(client, WEB, URL, own).bootfile == bootfile


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        ({"arm64": "/a.efi"}, "loaders.arm64: unknown platform"),
        ({"raspberry-pi": "/a.efi"}, "loaders.raspberry-pi: unknown platform"),
        ({"arm64-uefi": "/a/ipxe.efi", "27": "/b/ipxe.efi"}, "would have one name"),
        ({"7": "/own/snponly.efi"}, "would have one name"),
    ],
)
def test_loaders_that_cannot_be_are_refused(overrides: dict[str, str], complaint: str) -> None:
    with pytest.raises(PxebootError, match=complaint):
        choose_loaders({key: Path(path) for key, path in overrides.items()})


def test_the_architectures_are_ianas_list_without_a_gap() -> None:
    assert list(ARCHITECTURES) == list(range(42))
    assert all(row.code == code for code, row in ARCHITECTURES.items())


PI = "b8:27:eb:12:34:56"


@pytest.mark.parametrize(
    ("mac", "architecture", "machine", "is_pi"),
    [
        (PI, 0, None, True),
        ("dc:a6:32:00:00:01", 0, None, True),
        (MAC, 0, b"RPi4" + bytes(12), True),
        (MAC, 0, b"RPi5" + bytes(12), True),
        (MAC, 41, None, True),
        (MAC, 0, bytes(16), False),
        (PI, 11, None, False),  # UEFI firmware on a Pi is UEFI
    ],
)
def test_a_raspberry_pi_is_told_from_a_bios(
    mac: str, architecture: int, machine: bytes | None, is_pi: bool
) -> None:
    client = Client(
        Mac(mac),
        uuid=UUID(bytes_le=machine) if machine else None,
        architecture=architecture,
        vendor_class="PXEClient:Arch:00000:UNDI:002001",
    )
    assert client.is_raspberry_pi is is_pi
    bootfile = "bootcode.bin" if is_pi else {0: "undionly.kpxe", 11: ""}[architecture]
    assert decide(client, WEB, URL, replace(LOADERS, folder=True)).bootfile == bootfile


def test_a_raspberry_pi_without_its_files_is_met_with_silence() -> None:
    client = Client(Mac(PI), architecture=0, vendor_class="PXEClient:Arch:00000:UNDI:002001")
    decision = decide(client, WEB, URL, LOADERS)
    assert (decision.ignored, '[tftp] root = "/path"' in str(decision)) == (True, True)


@pytest.mark.parametrize(
    ("architecture", "loaders", "bootfile"),
    [
        (22, LOADERS, ""),
        (None, LOADERS, ""),  # as on RISC-V; it is no BIOS for that
        (22, replace(LOADERS, folder=True), "boot.scr.uimg"),
        (None, replace(LOADERS, folder=True), "boot.scr.uimg"),
        (22, choose_loaders({"arm64-u-boot": Path("/own/board.img")}), "board.img"),
    ],
)
def test_u_boot_on_its_own_behalf_is_never_met_with_silence(
    architecture: int | None, loaders: Loaders, bootfile: str
) -> None:
    client = Client(MAC, architecture=architecture, vendor_class="U-Boot.armv8")
    decision = decide(client, WEB, URL, loaders)
    assert (decision.bootfile, decision.ignored) == (bootfile, False)
    assert client.wants_boot
    assert not client.wants_pxe


def test_the_kernel_is_told_everything_the_initrd_needs() -> None:
    words = kernel_command_line(TOLD).split()
    assert words == [
        "BOOTIF=01-52-54-00-77-00-01",
        f"pxeboot.url={URL}/boot/TOKEN",
        f"pxeboot.image={'ab' * 32}",
        f"pxeboot.root={'cd' * 32}",
        "pxeboot.size=60000000",
        "pxeboot.name=web1",
        "pxeboot.address=10.77.0.100/24",
        "pxeboot.router=10.77.0.1",
        "pxeboot.dns=10.77.0.1,10.77.0.2",
        "console=ttyS0",
    ]


def test_without_a_lease_of_ours_the_initrd_asks_for_itself() -> None:
    line = kernel_command_line(replace(TOLD, address=""))
    assert "pxeboot.address" not in line
    assert "pxeboot.router" not in line


def test_an_ipxe_script_loads_starts_and_comes_back_after_a_failure() -> None:
    lines = ipxe_script(TOLD).splitlines()
    assert lines[0] == "#!ipxe"
    assert lines[2].startswith(f"kernel {URL}/boot/TOKEN/kernel initrd=initrd ")
    assert lines[3] == f"initrd --name initrd {URL}/boot/TOKEN/initrd || goto failed"
    assert lines[-1] == f"chain --replace {URL}/ipxe/{MAC} || goto failed"


def test_a_refusal_says_why_and_asks_again() -> None:
    text = ipxe_refusal("no image web", f"{URL}/ipxe/{MAC}")
    assert "echo pxeboot: no image web\n" in text
    assert f"chain --replace {URL}/ipxe/{MAC}" in text


def test_pxelinux_has_no_initrd_word_to_fetch() -> None:
    text = pxelinux_config(TOLD)
    assert f"  KERNEL {URL}/boot/TOKEN/kernel\n" in text
    assert f"  INITRD {URL}/boot/TOKEN/initrd\n" in text
    assert "initrd=" not in text


def test_grub_loads_by_tftp_and_reads_no_word_as_its_own() -> None:
    text = grub_config(replace(TOLD, url="http://10.77.0.1:8080/boot/TOKEN", kernel_args="quiet a=$b;c"))
    assert "  if initrd (tftp,10.77.0.1)/boot/TOKEN/initrd; then\n" in text
    line = next(line for line in text.splitlines() if line.startswith("if linux "))
    assert line.startswith("if linux (tftp,10.77.0.1)/boot/TOKEN/kernel BOOTIF=01-52-54-00-77-00-01 ")
    assert line.endswith(" quiet 'a=$b;c'; then")


def test_32_bit_uefi_gets_grub_of_debian() -> None:
    client = Client(MAC, architecture=6, vendor_class="PXEClient:Arch:00006:UNDI:003000")
    assert decide(client, WEB, URL, LOADERS).bootfile == "grubnetia32.efi"


@pytest.mark.parametrize(
    ("name", "mac"),
    [
        ("pxelinux.cfg/01-52-54-00-77-00-01", MAC),
        ("pxelinux.cfg/01-52-54-00-77-00-0", None),
        ("pxelinux.cfg/09a849ed-279f-4454-95b6-98aa19aa27f8", None),
        ("pxelinux.cfg/default", None),
        ("01-52-54-00-77-00-01", None),
    ],
)
def test_a_pxelinux_configuration_is_named_by_the_mac(name: str, mac: Mac | None) -> None:
    assert pxelinux_name(name) == mac
