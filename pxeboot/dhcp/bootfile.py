"""What to boot, in the words of a reply: the fields and options that PXE and UEFI HTTP Boot read."""

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address

from pxeboot.dhcp import options
from pxeboot.dhcp.packet import Packet
from pxeboot.pxe.client import Client
from pxeboot.pxe.policy import Decision

NO_PROXYDHCP = bytes((176, 1, 1))
"""Sub-option of 175 by which iPXE does not wait for a ProxyDHCP server: one second instead of three."""

# Sub-options of 43 (PXE 2.1 §2.2.3). We never send a menu to choose from, nor 8, the list of boot servers
# that a choice would be looked up in: 6 says that the named file is to be loaded at once.
DISCOVERY_CONTROL, BOOT_MENU, MENU_PROMPT, BOOT_ITEM = 6, 9, 10, 71

WITHOUT_MENU: Mapping[int, bytes] = {DISCOVERY_CONTROL: b"\x08"}
"""Bit 3: load the named file, no prompt and no further question."""

_PI_TEXT = b"Raspberry Pi Boot"
RASPBERRY_PI_MENU: Mapping[int, bytes] = {
    # A Pi's boot loader takes no server that does not offer an item of just this text (type 0, length, text)
    # and a prompt (0 seconds, text), and then asks nothing further.
    DISCOVERY_CONTROL: b"\x03",
    MENU_PROMPT: b"\0PXE",
    BOOT_MENU: b"\0\0" + bytes((len(_PI_TEXT),)) + _PI_TEXT,
}


def pxe_suboptions(client: Client) -> Mapping[int, bytes]:
    """Option 43 for a client that has said PXEClient."""
    return RASPBERRY_PI_MENU if client.is_raspberry_pi else WITHOUT_MENU


def boot_options(
    client: Client, server: IPv4Address, decision: Decision, suboptions: Mapping[int, bytes]
) -> dict[int, bytes]:
    """Options 67, 66, 60, 43 and 175 as this client wants them; `suboptions` are those of 43, if any."""
    if not decision.bootfile:
        return {}
    given = {options.BOOTFILE_NAME.code: options.BOOTFILE_NAME.encode(decision.bootfile)}
    if client.wants_http:
        # EDK2 drops a proxy's offer without this class, and one with the other class altogether.
        return given | {options.VENDOR_CLASS.code: b"HTTPClient"}
    given[options.TFTP_SERVER_NAME.code] = options.TFTP_SERVER_NAME.encode(str(server))
    if client.vendor_class.startswith("PXEClient"):
        # Only an echo: a client that did not say it must not hear it. With an address and this class but
        # without option 43, EDK2 would take us for a BINL server and ask port 4011 (PXE-E55).
        given[options.VENDOR_CLASS.code] = b"PXEClient"
        if suboptions:
            given[options.VENDOR_SPECIFIC.code] = options.VENDOR_SPECIFIC.encode(suboptions) + b"\xff"
    if client.is_ipxe:
        given[options.ETHERBOOT.code] = NO_PROXYDHCP
    return given


def with_bootfile(packet: Packet, server: IPv4Address, decision: Decision) -> Packet:
    """siaddr, sname and `file` beside options 66 and 67: some loaders read only the fields, some only 67."""
    if not decision.bootfile:
        return packet
    file = decision.bootfile.encode()
    return replace(
        packet,
        siaddr=server,
        sname=str(server).encode(),
        file=file if len(file) <= 127 else b"",
    )
