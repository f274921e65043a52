"""Firmware architectures, and the loader that each can start: option 93 and the files behind it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pxeboot.errors import PxebootError


@dataclass(frozen=True, slots=True)
class Loader:
    """A boot loader by the name it has over TFTP and HTTP, and where its file is."""

    name: str
    path: Path
    package: str = ""
    """The Debian package that puts it there; "" for a file of the operator's own."""
    rare: bool = False
    """Few sites have machines that need it, so that its absence is told only when one of them asks."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """One row: a value of option 93, and what it means."""

    code: int
    name: str
    platform: str
    """What an operator calls it in `[loaders]`: one word for PXE and HTTP Boot, whose loader is the same."""


UNDIONLY = Loader("undionly.kpxe", Path("/usr/lib/ipxe/undionly.kpxe"), "ipxe")
SNPONLY_X64 = Loader("snponly.efi", Path("/usr/lib/ipxe/snponly.efi"), "ipxe")
GRUB_X86 = Loader(
    "grubnetia32.efi",
    Path("/usr/lib/grub/i386-efi/monolithic/grubnetia32.efi"),
    "grub-efi-ia32-bin",
    rare=True,
)
PXELINUX = Loader("pxelinux.0", Path("/usr/lib/PXELINUX/pxelinux.0"), "pxelinux")
LPXELINUX = Loader("lpxelinux.0", Path("/usr/lib/PXELINUX/lpxelinux.0"), "pxelinux")
LDLINUX = Loader("ldlinux.c32", Path("/usr/lib/syslinux/modules/bios/ldlinux.c32"), "syslinux-common")

BIOS, RPIBOOT = 0, 41
RASPBERRY_PI = "raspberry-pi"
"""The platform told by other signs than option 93, where a Pi has 0 as a BIOS has."""

ARCHITECTURES = {
    row.code: row
    for row in (
        # IANA "Processor Architecture Types" (dhcpv6-parameters), the whole list. RFC 4578 has EBC (EFI byte
        # code) and x86-64 the wrong way round: the list and the firmware mean x86-64 by 7, but early firmware
        # followed the RFC, and nobody has loaders in byte code: 9 and 17 are x86-64 here as well.
        Architecture(BIOS, "x86 BIOS", "x86-bios"),
        Architecture(1, "NEC PC-98", "nec-pc98"),
        Architecture(2, "Itanium", "itanium"),
        Architecture(3, "DEC Alpha", "alpha"),
        Architecture(4, "Arc x86", "arc-x86"),
        Architecture(5, "Intel Lean Client", "intel-lean-client"),
        Architecture(6, "x86 UEFI", "x86-uefi"),
        Architecture(7, "x64 UEFI", "x64-uefi"),
        Architecture(8, "EFI Xscale", "xscale-uefi"),
        Architecture(9, "x64 UEFI (as EBC)", "x64-uefi"),
        Architecture(10, "arm32 UEFI", "arm32-uefi"),
        Architecture(11, "arm64 UEFI", "arm64-uefi"),
        Architecture(12, "PowerPC Open Firmware", "powerpc-open-firmware"),
        Architecture(13, "PowerPC ePAPR", "powerpc-epapr"),
        Architecture(14, "POWER OPAL v3", "power-opal"),
        Architecture(15, "x86 UEFI HTTP", "x86-uefi"),
        Architecture(16, "x64 UEFI HTTP", "x64-uefi"),
        Architecture(17, "x64 UEFI HTTP (as EBC)", "x64-uefi"),
        Architecture(18, "arm32 UEFI HTTP", "arm32-uefi"),
        Architecture(19, "arm64 UEFI HTTP", "arm64-uefi"),
        Architecture(20, "x86 BIOS HTTP", "x86-bios"),
        Architecture(21, "arm32 U-Boot", "arm32-u-boot"),
        Architecture(22, "arm64 U-Boot", "arm64-u-boot"),
        Architecture(23, "arm32 U-Boot HTTP", "arm32-u-boot"),
        Architecture(24, "arm64 U-Boot HTTP", "arm64-u-boot"),
        Architecture(25, "RISC-V 32 UEFI", "riscv32-uefi"),
        Architecture(26, "RISC-V 32 UEFI HTTP", "riscv32-uefi"),
        Architecture(27, "RISC-V 64 UEFI", "riscv64-uefi"),
        Architecture(28, "RISC-V 64 UEFI HTTP", "riscv64-uefi"),
        Architecture(29, "RISC-V 128 UEFI", "riscv128-uefi"),
        Architecture(30, "RISC-V 128 UEFI HTTP", "riscv128-uefi"),
        Architecture(31, "s390 Basic", "s390-basic"),
        Architecture(32, "s390 Extended", "s390-extended"),
        Architecture(33, "MIPS 32 UEFI", "mips32-uefi"),
        Architecture(34, "MIPS 64 UEFI", "mips64-uefi"),
        Architecture(35, "Sunway 32 UEFI", "sunway32-uefi"),
        Architecture(36, "Sunway 64 UEFI", "sunway64-uefi"),
        Architecture(37, "LoongArch 32 UEFI", "loongarch32-uefi"),
        Architecture(38, "LoongArch 32 UEFI HTTP", "loongarch32-uefi"),
        Architecture(39, "LoongArch 64 UEFI", "loongarch64-uefi"),
        Architecture(40, "LoongArch 64 UEFI HTTP", "loongarch64-uefi"),
        Architecture(RPIBOOT, "ARM rpiboot", RASPBERRY_PI),
    )
}

DEFAULT_LOADERS = {"x86-bios": UNDIONLY, "x64-uefi": SNPONLY_X64, "x86-uefi": GRUB_X86}
"""By platform, what Debian 12 packages for an amd64 machine: iPXE for two, GRUB for the third."""

PI_FIRST_FILE = "bootcode.bin"
"""What a Raspberry Pi is told: a Pi 3's first file. Later ones know their files' names themselves."""

U_BOOT_SCRIPT = "boot.scr.uimg"
"""What U-Boot's standard boot command asks for by itself, once it knows from whom."""


@dataclass(frozen=True, slots=True)
class Loaders:
    """Which loader each architecture gets: the operator's file, or Debian's."""

    chosen: Mapping[int, Loader]
    """By code of option 93."""
    missing: frozenset[str] = frozenset()
    """Names of loaders whose files are not there."""
    folder: bool = False
    """Whether there is `tftp.root`, where the operator puts files that firmware asks for by its own names."""

    def find(self, code: int | None) -> Loader | str:
        """The loader for an architecture (None: a client that does not say, which only a BIOS does), or one
        sentence that says what is missing and how to give it."""
        row = ARCHITECTURES.get(BIOS if code is None else code)
        loader = self.chosen.get(BIOS if code is None else code)
        if loader is None:
            name, key = (row.name, row.platform) if row else (f"architecture {code}", str(code))
            return (
                f'no loader for {name}: Debian 12 has none, name a file: [loaders] {key} = "/path/ipxe.efi"'
            )
        if loader.name in self.missing:
            return f"loader {loader.name} is missing: {remedy(loader)}"
        return loader


def remedy(loader: Loader) -> str:
    """What an operator does about a loader whose file is not there."""
    return f"apt-get install {loader.package}" if loader.package else f"there is no file {loader.path}"


def choose_loaders(overrides: Mapping[str, Path]) -> Loaders:
    """Lay the operator's `[loaders]` over what Debian has; a number holds over a platform's name.

    Raises PxebootError for a key that is neither, and where one name would be two files.
    """
    own = {key: Loader(path.name, path) for key, path in overrides.items()}
    platforms = {row.platform for row in ARCHITECTURES.values()} - {RASPBERRY_PI}
    for key in own:
        if key not in platforms and not key.isdigit():
            raise PxebootError(
                f"loaders.{key}: unknown platform",
                f"a number of option 93, or one of: {', '.join(sorted(platforms))}",
            )
    by_platform = DEFAULT_LOADERS | own
    chosen = {
        row.code: by_platform[row.platform] for row in ARCHITECTURES.values() if row.platform in by_platform
    }
    chosen |= {int(key): loader for key, loader in own.items() if key.isdigit()}
    _refuse_doubled_names(chosen.values())
    return Loaders(chosen)


def _refuse_doubled_names(loaders: Iterable[Loader]) -> None:
    paths: dict[str, Path] = {}
    for loader in loaders:
        if paths.setdefault(loader.name, loader.path) != loader.path:
            raise PxebootError(
                f"loaders: {paths[loader.name]} and {loader.path} would have one name over TFTP and HTTP",
                "rename one of the files",
            )
