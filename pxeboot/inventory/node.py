"""What a node is: one machine, known by its MAC address."""

from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from uuid import UUID

from pxeboot.config import ANY_MACHINE, Config, GroupConfig, matches
from pxeboot.mac import Mac


@dataclass(frozen=True, slots=True)
class Node:
    """A machine that has asked to boot, or that an operator has announced.

    What the operator sets (`name`, `group`, `address`) holds over what the configuration says for machines
    like it. Times are Unix seconds.
    """

    mac: Mac
    name: str
    uuid: UUID | None = None
    group: str | None = None
    address: IPv4Address | None = None
    first_seen: float | None = None


def default_name(mac: Mac) -> str:
    """The name of a machine nobody has named: `node-` and its MAC address, so that it is unique."""
    return "node-" + mac.replace(":", "")


def seen(mac: Mac, uuid: UUID | None, known: Node | None, now: float) -> Node:
    """The record of a machine that has just shown itself; the same object if that is no news."""
    if known is None:
        return Node(mac, default_name(mac), uuid, first_seen=now)
    if known.first_seen is None or (uuid is not None and uuid != known.uuid):
        return replace(known, uuid=uuid or known.uuid, first_seen=known.first_seen or now)
    return known


def group_of(node: Node, config: Config) -> GroupConfig | None:
    """The group that a node belongs to: the operator's word, then its address or UUID, then "*"."""
    if node.group is not None:
        return config.group_named(node.group)
    names = [str(node.mac)] + ([str(node.uuid)] if node.uuid else [])
    for group in config.group:
        for pattern in group.match:
            if pattern != ANY_MACHINE and any(matches(pattern, name) for name in names):
                return group
    return next((group for group in config.group if ANY_MACHINE in group.match), None)
