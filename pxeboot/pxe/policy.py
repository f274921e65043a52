"""What should this client boot? One question, one answer, with its reason."""

from dataclasses import dataclass

from pxeboot.config import GroupConfig
from pxeboot.pxe.arch import LPXELINUX, PI_FIRST_FILE, U_BOOT_SCRIPT, Loaders
from pxeboot.pxe.client import Client


@dataclass(frozen=True, slots=True)
class Decision:
    """What option 67 and `file` say, "" for an address and nothing to boot; and why."""

    bootfile: str
    reason: str
    ignored: bool = False
    """No answer at all: firmware that is given an address and then no loader waits, or leaks memory (Intel
    Boot Agent); without an answer it goes on to its next boot device."""

    def __str__(self) -> str:
        if self.ignored:
            return f"ignored ({self.reason})"
        return f"boots {self.bootfile} ({self.reason})" if self.bootfile else f"address only ({self.reason})"


def decide(client: Client, group: GroupConfig | None, base_url: str, loaders: Loaders) -> Decision:
    """Choose what a client is sent to. `base_url` is our HTTP server as this client reaches it."""
    if not client.wants_boot:
        return Decision("", "did not ask to boot")
    if group is None:
        return Decision("", "no group claims it")
    return _boot(client, group, base_url, loaders)


def _boot(client: Client, group: GroupConfig, base_url: str, loaders: Loaders) -> Decision:
    if client.is_raspberry_pi:
        return _raspberry_pi(group, loaders)
    if client.is_u_boot:
        return _u_boot(client, group, loaders)
    if group.loader == "pxelinux" and client.is_bios:
        return Decision(LPXELINUX.name, f"group {group.name}")  # the group's word holds for an iPXE ROM too
    if client.is_capable_ipxe:
        return Decision(f"{base_url}/ipxe/{client.mac}", f"group {group.name}, iPXE")
    loader = loaders.find(client.architecture)
    if isinstance(loader, str):
        return Decision("", loader, ignored=True)
    reason = f"group {group.name}, {client.platform}"
    return Decision(f"{base_url}/loader/{loader.name}" if client.wants_http else loader.name, reason)


def _raspberry_pi(group: GroupConfig, loaders: Loaders) -> Decision:
    if not loaders.folder:
        return Decision(
            "", 'no files for a Raspberry Pi: put them in a folder, [tftp] root = "/path"', ignored=True
        )
    return Decision(PI_FIRST_FILE, f"group {group.name}, Raspberry Pi")


def _u_boot(client: Client, group: GroupConfig, loaders: Loaders) -> Decision:
    """The operator's loader for this kind of board, or the script that U-Boot asks for by itself.

    With neither it gets an address all the same, and goes on to ask as UEFI: silence would hold it up.
    """
    loader = loaders.chosen.get(client.architecture) if client.architecture is not None else None
    if loader is not None:
        return Decision(loader.name, f"group {group.name}, {client.platform}")
    if loaders.folder:
        return Decision(U_BOOT_SCRIPT, f"group {group.name}, {client.platform}")
    return Decision("", f"{client.platform} on its own behalf")
