"""Which node is it that asks? By MAC address, or by UUID where the operator has named the node by it.

A UUID that a machine has merely told is not enough: boards of one make have been seen to share one. The
operator who names a node by UUID vouches for it, and then it is that node whichever network card asks.
A node that was named by its MAC address keeps that card, whatever UUID it tells.
"""

import logging
import time
from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv4Network
from uuid import UUID

from pxeboot.inventory.node import Node, is_unseen, unseen_mac
from pxeboot.inventory.store import Store
from pxeboot.mac import Mac

log = logging.getLogger(__name__)


async def recognise(
    store: Store, mac: Mac, uuid: UUID | None, networks: Iterable[IPv4Network]
) -> Node | None:
    """The node that a machine is, None: nothing is known of it. A node named by UUID moves to this card."""
    standing = await store.node(mac)
    if uuid is None or (standing is not None and standing.by_uuid and standing.uuid == uuid):
        return standing
    named = await store.node_of_uuid(uuid)
    if named is None or (standing is not None and standing.known_since and not standing.by_uuid):
        return standing
    if standing is not None and standing.by_uuid and standing.uuid is not None:
        # The card has been in another machine, which is waited for under its UUID again.
        await store.move_node(mac, replace(standing, mac=unseen_mac(standing.uuid)))
    await _release(store, named.mac, networks)
    log.info("%s: is %s by its UUID%s", mac, named.name, "" if is_unseen(named.mac) else f", was {named.mac}")
    node = replace(named, mac=mac)
    await store.move_node(named.mac, node)
    return node


async def _release(store: Store, mac: Mac, networks: Iterable[IPv4Network]) -> None:
    """Free what the other card has: the machine asks from here, so nothing runs there any more."""
    now = time.time()
    for network in networks:
        lease = await store.lease_of(network, mac)
        if lease is not None and lease.active(now):
            await store.release(network, mac, lease.address, now)
