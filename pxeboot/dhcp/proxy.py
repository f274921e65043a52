"""ProxyDHCP: what to boot, said beside another server that gives the addresses (PXE 2.1 §2.2, §2.3).

A proxy's offer has no address and no lease. Its client takes an address from the other server, and then
either boots what the offer named, or asks once more, at port 4011, what to boot.
"""

import struct
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address

from pxeboot.dhcp import options
from pxeboot.dhcp.bootfile import BOOT_ITEM, boot_options, with_bootfile
from pxeboot.dhcp.options import MessageType
from pxeboot.dhcp.packet import Packet, value_of
from pxeboot.dhcp.responder import Broadcast, Reply, Unicast, destination, reply_frame, suboptions
from pxeboot.dhcp.terms import Terms
from pxeboot.pxe.client import Client
from pxeboot.pxe.policy import Decision

BOOT_SERVER_PORT = 4011
_ITEM = struct.Struct("!HH")

_NOWHERE = IPv4Address(0)


def offer(request: Packet, client: Client, terms: Terms, decision: Decision) -> Reply:
    """OFFER of a boot file alone, to a DISCOVER."""
    packet = _reply(MessageType.OFFER, request, client, terms, decision, _suboptions(client, terms))
    return Reply(packet, destination(request, _NOWHERE))


def boot_server_ack(
    request: Packet, client: Client, terms: Terms, decision: Decision, peer: tuple[IPv4Address, int]
) -> Reply | None:
    """Answer to a REQUEST or INFORM at port 4011, which is to leave from that port.

    It goes to where the request came from, for there is no rule which port that is. None: the item that the
    client has chosen from a menu is one that we do not have.
    """
    given = dict(_suboptions(client, terms))
    item = _boot_item(request)
    if item is not None:
        _, layer = _ITEM.unpack(item)
        if layer:
            # PXE 2.1 §2.2.3: files after the first of a type, and with bit 15 signatures of files (BIS).
            return None
        given[BOOT_ITEM] = item  # who has chosen takes no answer that does not say what it answers
    packet = _reply(MessageType.ACK, request, client, terms, decision, given)
    address, port = peer
    return Reply(packet, Broadcast() if address == _NOWHERE else Unicast(address, port))


def address_taken(request: Packet) -> IPv4Address | None:
    """The address that a machine now has from another server, as its own request tells.

    A REQUEST that takes an offer names server and address; a later one comes from the address. An INIT-REBOOT
    only remembers one, which may be somebody else's by now.
    """
    if request.ciaddr != _NOWHERE:
        return request.ciaddr
    wanted = value_of(request, options.REQUESTED_ADDRESS)
    if isinstance(wanted, IPv4Address) and options.SERVER_IDENTIFIER.code in request.options:
        return wanted
    return None


def _suboptions(client: Client, terms: Terms) -> Mapping[int, bytes]:
    """Option 43, the operator's menu (8, 9, 10) in it if there is one.

    EDK2 forgets a proxy's offer that has sub-options 6 to 10; one without them it asks about at 4011.

    Seen in NetworkPkg/UefiPxeBcDxe: such an offer is kept only if there is one already.
    """
    takes = client.is_ipxe or client.is_bios or client.is_raspberry_pi
    return suboptions(client, terms) if takes else {}


def _boot_item(request: Packet) -> bytes | None:
    """The item that the client has chosen: its type and layer, two bytes each."""
    given = value_of(request, options.VENDOR_SPECIFIC)
    item = given.get(BOOT_ITEM) if isinstance(given, dict) else None
    return item if isinstance(item, bytes) and len(item) == _ITEM.size else None


def _reply(
    kind: MessageType,
    request: Packet,
    client: Client,
    terms: Terms,
    decision: Decision,
    given: Mapping[int, bytes],
) -> Packet:
    server = terms.server
    packet = reply_frame(kind, request, server, boot_options(client, server, decision, given))
    return with_bootfile(replace(packet, yiaddr=_NOWHERE), server, decision)
