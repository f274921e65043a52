"""Who is asking? What a request's options tell of the machine and of the program that sent it."""

from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar
from uuid import UUID

from pxeboot.dhcp import options
from pxeboot.dhcp.options import Option, read
from pxeboot.dhcp.packet import Packet
from pxeboot.errors import MalformedPacket
from pxeboot.mac import Mac
from pxeboot.pxe.arch import ARCHITECTURES, BIOS, RPIBOOT

T = TypeVar("T")

# Sub-options of option 175 by which iPXE names what it was built with (its src/include/ipxe/dhcp.h).
FEATURE_HTTP, FEATURE_BZIMAGE, FEATURE_EFI = 19, 24, 36

PROBE_CLASS = "pxeboot-probe"
"""The user class of `pxeboot probe`, behind which no machine stands."""

# The first octets of Raspberry Pi Ltd's MAC addresses (IEEE registry).
RASPBERRY_PI_OUIS = (
    "28:cd:c1", "2c:cf:67", "88:a2:9e", "b8:27:eb", "d8:3a:dd", "dc:a6:32", "e4:5f:01",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Client:
    """A machine and what speaks for it now: firmware, iPXE, or a system that only wants an address."""

    mac: Mac
    uuid: UUID | None = None
    architecture: int | None = None
    """Of option 93: the first we know, else the first there is."""
    vendor_class: str = ""
    user_class: str = ""
    features: frozenset[int] = frozenset()
    """What iPXE says it can, by sub-option code of option 175."""

    @property
    def is_ipxe(self) -> bool:
        """iPXE says so itself in its user class."""
        return self.user_class == "iPXE"

    @property
    def is_probe(self) -> bool:
        """Whether an operator asks in this way who answers here."""
        return self.user_class == PROBE_CLASS

    @property
    def wants_pxe(self) -> bool:
        """Whether it asks to be told what to boot, as PXE (2.1 §2.2.1) has it."""
        return self.is_ipxe or self.vendor_class.startswith("PXEClient")

    @property
    def wants_http(self) -> bool:
        """Whether it is UEFI HTTP Boot (UEFI 2.10 §24.7), which takes a URL and no file name."""
        return self.vendor_class.startswith("HTTPClient") and not self.is_ipxe

    @property
    def is_u_boot(self) -> bool:
        """U-Boot on its own behalf, which looks for a script or a file for boards of its kind. It may not say
        what architecture it is. When it looks for an EFI program it says PXEClient like any UEFI."""
        return self.vendor_class.startswith("U-Boot")

    @property
    def wants_boot(self) -> bool:
        """Whether it asks to be told what to boot, in whichever way."""
        return self.wants_pxe or self.wants_http or self.is_u_boot

    @property
    def is_bios(self) -> bool:
        """x86 firmware of the old kind; who does not say what it is, is of it."""
        return self.architecture in (BIOS, None) and not self.is_u_boot

    @property
    def is_raspberry_pi(self) -> bool:
        """A Pi's own boot loader. It says to be a BIOS, so it is told by its maker's MAC addresses, or by
        option 97, in which a Pi 4 and later have "RPi4", "RPi5"."""
        if self.is_ipxe or self.architecture not in (BIOS, RPIBOOT) or not self.wants_pxe:
            return False
        machine = self.uuid.bytes_le if self.uuid else b""
        return (
            self.architecture == RPIBOOT
            or machine.startswith(b"RPi")
            or self.mac.startswith(RASPBERRY_PI_OUIS)
        )

    @property
    def is_capable_ipxe(self) -> bool:
        """An iPXE that fetches a script by HTTP and starts a Linux kernel from it."""
        kernel = FEATURE_BZIMAGE if self.is_bios else FEATURE_EFI
        return self.is_ipxe and {FEATURE_HTTP, kernel} <= self.features

    @property
    def platform(self) -> str:
        """What kind of firmware it is, for people."""
        if self.is_raspberry_pi:
            return "Raspberry Pi"
        if self.is_u_boot and self.architecture is None:
            return "U-Boot"
        if self.architecture is None:
            return "no architecture"
        row = ARCHITECTURES.get(self.architecture)
        return row.name if row else f"architecture {self.architecture}"

    @property
    def firmware(self) -> str:
        """Platform and classes as one line, for people."""
        return ", ".join(part for part in (self.platform, self.vendor_class, self.user_class) if part)


def identify(request: Packet) -> Client:
    """Read options 93, 60, 77, 175 and 97; a malformed one counts as missing. Raises MalformedPacket
    where the hardware address is not Ethernet's."""
    given = request.options
    uuid = _typed(given, options.CLIENT_MACHINE_IDENTIFIER, UUID) if 97 in given else None
    return Client(request.mac, uuid, *_program(given.get(93), given.get(60), given.get(77), given.get(175)))


@lru_cache(256)  # a thousand machines of one make say the same
def _program(
    architectures: bytes | None, vendor_class: bytes | None, user_class: bytes | None, features: bytes | None
) -> tuple[int | None, str, str, frozenset[int]]:
    """What options 93, 60, 77 and 175 tell of the program that asks, as `Client` keeps it."""
    raw = {93: architectures, 60: vendor_class, 77: user_class, 175: features}
    given = {code: value for code, value in raw.items() if value is not None}
    codes = _typed(given, options.CLIENT_ARCHITECTURE, tuple) or ()
    return (
        next((code for code in codes if code in ARCHITECTURES), codes[0] if codes else None),
        _typed(given, options.VENDOR_CLASS, str) or "",
        " ".join(_typed(given, options.USER_CLASS, tuple) or ()),
        frozenset(_typed(given, options.ETHERBOOT, dict) or {}),
    )


def _typed(given: dict[int, bytes], option: Option, kind: type[T]) -> T | None:
    try:
        value = read(option, given)
    except MalformedPacket:
        return None
    return value if isinstance(value, kind) else None
