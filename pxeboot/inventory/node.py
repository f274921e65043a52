"""What a node is: one machine, known by its MAC address or, where the operator says so, by its UUID."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from typing import Any
from uuid import UUID

from pxeboot.config import ANY_MACHINE, Config, GroupConfig, matches
from pxeboot.inventory.overlay import Overlay
from pxeboot.mac import Mac


@dataclass(frozen=True, slots=True)
class Node:
    """A machine that has asked to boot, or that an operator has announced.

    What the operator sets (`name`, `group`, `address`, `options`) holds over what the configuration says for
    machines like it. Times are Unix seconds.
    """

    mac: Mac
    name: str
    uuid: UUID | None = None
    group: str | None = None
    address: IPv4Address | None = None
    first_seen: float | None = None
    by_uuid: bool = False
    """The operator named it by its UUID: whichever of its network cards asks, it is this node."""
    known_since: float | None = None
    """When an operator first said something of it; None: it has only shown itself."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """DHCP options for this machine alone, as the operator wrote them (`dhcp.custom`)."""
    overlay: Overlay = field(default_factory=Overlay)
    """What is laid over this machine's root alone."""


def default_name(mac: Mac) -> str:
    """The name of a machine nobody has named: `node-` and its MAC address, so that it is unique."""
    return "node-" + mac.replace(":", "")


def unseen_mac(uuid: UUID) -> Mac:
    """What stands for the MAC address of a machine announced by its UUID, until it shows itself.

    No network card has it: its group bit is set (IEEE 802 §8.2.2).
    """
    return Mac.from_bytes(b"\x03" + uuid.bytes[-5:])


def is_unseen(mac: Mac) -> bool:
    """Whether this stands for an address that is not known yet."""
    return mac.packed[0] == 0x03


def seen(mac: Mac, uuid: UUID | None, known: Node | None, now: float) -> Node:
    """The record of a machine that has just shown itself; the same object if that is no news."""
    if known is None:
        return Node(mac, default_name(mac), uuid, first_seen=now)
    told = known.uuid if known.by_uuid else uuid or known.uuid  # the operator's word stands
    if known.first_seen is None or told != known.uuid:
        return replace(known, uuid=told, first_seen=known.first_seen or now)
    return known


def group_of(node: Node, config: Config) -> GroupConfig | None:
    """The group that a node belongs to: the operator's word, then its address or UUID, then "*".

    Who is not known is in none but where `unknown = "boot"`.
    """
    if node.group is not None:
        return config.group_named(node.group)
    claimed = _claimed(node, config)
    if claimed is not None:
        return claimed
    if node.known_since is None and config.server.unknown != "boot":
        return None
    return next((group for group in config.group if ANY_MACHINE in group.match), None)


def is_known(node: Node, config: Config) -> bool:
    """Whether an operator has spoken of this machine, or a pattern other than "*" claims it."""
    return node.known_since is not None or _claimed(node, config) is not None


def _claimed(node: Node, config: Config) -> GroupConfig | None:
    """The first group with a pattern for just this machine or for those like it."""
    names = (node.mac, str(node.uuid)) if node.uuid else (node.mac,)
    for group in config.group:
        for pattern in group.match:
            if pattern != ANY_MACHINE and any(matches(pattern, name) for name in names):
                return group
    return None
