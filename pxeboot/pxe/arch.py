"""Firmware architectures, and the loader that each can start: option 93 and the files behind it."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Loader:
    """A boot loader by the name it has over TFTP: where its Debian package puts it."""

    name: str
    package: str
    path: Path


@dataclass(frozen=True, slots=True)
class Architecture:
    """One row: a value of option 93, what it means, and iPXE's build for it (None: none is known)."""

    code: int
    name: str
    loader: Loader | None = None


UNDIONLY = Loader("undionly.kpxe", "ipxe", Path("/usr/lib/ipxe/undionly.kpxe"))
SNPONLY_X64 = Loader("snponly.efi", "ipxe", Path("/usr/lib/ipxe/snponly.efi"))
PXELINUX = Loader("pxelinux.0", "pxelinux", Path("/usr/lib/PXELINUX/pxelinux.0"))
LPXELINUX = Loader("lpxelinux.0", "pxelinux", Path("/usr/lib/PXELINUX/lpxelinux.0"))
LDLINUX = Loader("ldlinux.c32", "syslinux-common", Path("/usr/lib/syslinux/modules/bios/ldlinux.c32"))

LOADERS = {loader.name: loader for loader in (UNDIONLY, SNPONLY_X64, PXELINUX, LPXELINUX, LDLINUX)}
"""Every loader that TFTP serves, by name."""

BIOS = 0

ARCHITECTURES = {
    row.code: row
    for row in (
        # IANA "Processor Architecture Types". RFC 4578 has EFI BC and x86-64 the wrong way round: the list
        # and the firmware mean x86-64 by 7, but early firmware followed the RFC, so 9 is x86-64 here as well.
        Architecture(BIOS, "x86 BIOS", UNDIONLY),
        Architecture(6, "x86 UEFI"),
        Architecture(7, "x64 UEFI", SNPONLY_X64),
        Architecture(9, "x64 UEFI (as 9)", SNPONLY_X64),
        Architecture(11, "arm64 UEFI"),
        Architecture(15, "x86 UEFI HTTP"),
        Architecture(16, "x64 UEFI HTTP"),
        Architecture(19, "arm64 UEFI HTTP"),
    )
}
