"""What should this client boot? One question, one answer, with its reason."""

from dataclasses import dataclass

from pxeboot.config import GroupConfig
from pxeboot.pxe.arch import ARCHITECTURES, BIOS, LPXELINUX
from pxeboot.pxe.client import Client


@dataclass(frozen=True, slots=True)
class Decision:
    """What option 67 and `file` say, "" for an address and nothing to boot; and why."""

    bootfile: str
    reason: str

    def __str__(self) -> str:
        return f"boots {self.bootfile} ({self.reason})" if self.bootfile else f"address only ({self.reason})"


def decide(client: Client, group: GroupConfig | None, base_url: str) -> Decision:
    """Choose what a client is sent to. `base_url` is our HTTP server as this client reaches it."""
    if not client.wants_pxe:
        # UEFI HTTP Boot is among them: EDK2 drops an offer that says PXEClient to an HTTPClient.
        return Decision("", "did not ask for PXE")
    if group is None:
        return Decision("", "no group claims it")
    if group.loader == "pxelinux" and client.architecture in (BIOS, None):
        return Decision(LPXELINUX.name, f"group {group.name}")  # the group's word holds for an iPXE ROM too
    if client.is_capable_ipxe:
        return Decision(f"{base_url}/ipxe/{client.mac}", f"group {group.name}, iPXE")
    row = ARCHITECTURES.get(BIOS if client.architecture is None else client.architecture)
    if row is None or row.loader is None:
        return Decision("", f"no loader for {client.firmware}")
    return Decision(row.loader.name, f"group {group.name}, {row.name}")
