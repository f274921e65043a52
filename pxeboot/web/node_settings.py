"""What operators say of nodes, one at a time or as a list: found, changed, checked, saved."""

import contextlib
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from pxeboot.dhcp import custom
from pxeboot.errors import PxebootError
from pxeboot.inventory.node import Node, default_name, unseen_mac
from pxeboot.inventory.overlay import MAX_FILES_BYTES, Laid, NodeFile, Overlay
from pxeboot.inventory.store import Store
from pxeboot.mac import Mac
from pxeboot.site import Site
from pxeboot.web.views import EntryFault, NodeEntry, NodePatch, machine_uuid

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class WrongSetting(PxebootError):
    """A setting that cannot be; `key` is its name."""

    def __init__(self, key: str, message: str, hint: str) -> None:
        super().__init__(message, hint)
        self.key = key


class RefusedEntries(PxebootError):
    """A list of nodes of which nothing was taken, and why."""

    def __init__(self, faults: Sequence[EntryFault], count: int) -> None:
        super().__init__(
            f"{len({fault.entry for fault in faults})} of {count} nodes cannot be taken; nothing was changed",
            "mend them and send the whole list again",
        )
        self.faults = faults


@dataclass(frozen=True, slots=True)
class Taken:
    """What a list has led to."""

    added: list[Node]
    changed: list[Node]
    unchanged: int


class NodeSettings:
    """Nodes as operators name and set them."""

    def __init__(self, site: Site, store: Store) -> None:
        self._site = site
        self._store = store

    async def find(self, name: str) -> Node:
        """The node of that name, MAC address or UUID. Raises PxebootError."""
        node = await self._look_up(name)
        if node is None:
            raise PxebootError(f"there is no node {name!r}", "`pxeboot node list` shows names and addresses")
        return node

    async def set(self, name: str, patch: NodePatch) -> Node:
        """Change one node; a MAC address or UUID not seen yet is announced by this. Raises PxebootError."""
        node = _patched(await self._look_up(name) or _announced(name), patch, time.time())
        uuid = _uuid(name)
        if uuid is not None:
            node = replace(node, uuid=uuid, by_uuid=True)
        await self._check(node)
        await self._store.save_nodes((node,))
        return node

    async def take(self, entries: Sequence[NodeEntry]) -> Taken:
        """Take a whole list. What is not named in it stays as it is. Raises RefusedEntries."""
        now = time.time()
        known = {node.mac: node for node in await self._store.nodes()}
        by_uuid = _by_uuid(known.values())
        wanted: dict[Mac, tuple[int, Node]] = {}
        faults: list[EntryFault] = []
        for index, entry in enumerate(entries):
            try:
                before = _standing(entry, known, by_uuid)
                node = _patched(before, entry, now)
                if node != before:
                    await self._check(node)
            except PxebootError as error:
                faults.append(_fault(index, error))
                continue
            if node.mac in wanted:
                first = wanted[node.mac][0] + 1
                faults.append(
                    EntryFault(
                        entry=index, key="", error=f"is node {first} of the list too", hint="say it once"
                    )
                )
            wanted.setdefault(node.mac, (index, node))
        faults += _shared(known, wanted)
        if faults:
            raise RefusedEntries(sorted(faults, key=lambda fault: fault.entry), len(entries))
        nodes = [node for _, node in wanted.values()]
        added = [node for node in nodes if node.mac not in known]
        changed = [node for node in nodes if node.mac in known and known[node.mac] != node]
        if added or changed:
            await self._store.save_nodes((*added, *changed))
        return Taken(added, changed, len(nodes) - len(added) - len(changed))

    async def _look_up(self, name: str) -> Node | None:
        with contextlib.suppress(ValueError):
            return await self._store.node(Mac.parse(name))
        nodes = await self._store.nodes()
        uuid = _uuid(name)
        if uuid is None:
            return next((node for node in nodes if node.name == name), None)
        return await self._store.node_of_uuid(uuid) or _only([node for node in nodes if node.uuid == uuid])

    async def _check(self, node: Node) -> None:
        """Refuse what the configuration contradicts. Raises WrongSetting."""
        if node.group is not None and self._site.config.group_named(node.group) is None:
            known = ", ".join(group.name for group in self._site.config.group) or "none"
            raise WrongSetting(
                "group", f"there is no group {node.group!r}", f"the configuration has: {known}"
            )
        if node.address is None:
            return
        network = self._site.network_of(node.address)
        if network is None:
            raise WrongSetting(
                "address", f"{node.address} is in no configured network", "choose one in a subnet of ours"
            )
        if node.address in (network.address, network.config.router):
            raise WrongSetting(
                "address", f"{node.address} is this server's or the router's", "choose another address"
            )
        if any(node.address == service.vip for service in self._site.config.service):
            raise WrongSetting("address", f"{node.address} is a service's", "choose another address")
        lease = await self._store.lease_at(node.address)
        if lease is not None and not lease.free_for(node.mac, time.time()):
            raise WrongSetting(
                "address",
                f"{node.address} is {lease.state.value} ({lease.mac}) at this moment",
                "choose another address, or wait until it is free",
            )


def _standing(entry: NodeEntry, known: Mapping[Mac, Node], by_uuid: Mapping[UUID, list[Node]]) -> Node:
    """The node that an entry means, or a new one. Raises PxebootError."""
    if entry.mac is not None:
        return known.get(entry.mac) or Node(entry.mac, default_name(entry.mac))
    assert entry.uuid is not None  # the model sees to it
    node = _only(by_uuid.get(entry.uuid, []))
    mac = unseen_mac(entry.uuid)
    return node or Node(mac, default_name(mac), entry.uuid)


def _by_uuid(nodes: Iterable[Node]) -> dict[UUID, list[Node]]:
    """The nodes of each UUID: the one that is named by it, or else all that have told it."""
    found: dict[UUID, list[Node]] = {}
    for node in nodes:
        if node.uuid is not None:
            found.setdefault(node.uuid, []).append(node)
    return {uuid: [node for node in row if node.by_uuid] or row for uuid, row in found.items()}


def _shared(known: Mapping[Mac, Node], wanted: Mapping[Mac, tuple[int, Node]]) -> list[EntryFault]:
    """What would be two nodes' own when the list is taken: names, addresses, UUIDs they are named by."""
    owners: dict[tuple[str, object], str] = {}
    for mac, node in known.items():
        if mac not in wanted:
            owners |= dict.fromkeys(_claims(node), node.name)
    faults = []
    for index, node in wanted.values():
        for claim in _claims(node):
            owner = owners.setdefault(claim, f"node {index + 1} of the list")
            if owner != f"node {index + 1} of the list":
                key, value = claim
                error = f"{value} is also that of {owner}"
                faults.append(EntryFault(entry=index, key=key, error=error, hint="each is one node's only"))
    return faults


def _claims(node: Node) -> list[tuple[str, object]]:
    claims: list[tuple[str, object]] = [("name", node.name)]
    if node.address is not None:
        claims.append(("address", node.address))
    if node.by_uuid:
        claims.append(("uuid", node.uuid))
    return claims


def _fault(index: int, error: PxebootError) -> EntryFault:
    key = error.key if isinstance(error, WrongSetting) else ""
    return EntryFault(entry=index, key=key, error=str(error), hint=error.hint)


def _patched(node: Node, patch: NodePatch, now: float) -> Node:
    """The node as the operator wants it, and known from now on. Raises PxebootError."""
    changes = patch.model_dump(exclude_unset=True, exclude={"mac", "vars", "files"})
    if "uuid" in changes:
        changes["by_uuid"] = changes["uuid"] is not None
    if "options" in changes:
        changes["options"] = _merged(node.options, changes["options"])
    if patch.vars or patch.files:
        changes["overlay"] = _laid(node.overlay, patch)
    return replace(node, **changes, known_since=node.known_since or now)


def _laid(overlay: Overlay, patch: NodePatch) -> Overlay:
    """The overlay with words and files replaced and, where null, taken back. Raises WrongSetting."""
    words = {**overlay.vars, **patch.vars}
    files: dict[str, NodeFile | None] = dict(overlay.files)
    for path, file in patch.files.items():
        laid = Laid(**file.model_dump(exclude={"data"})) if file else Laid()
        files[path] = NodeFile(file.data, laid) if file else None
    kept = {path: file for path, file in files.items() if file is not None}
    size = sum(len(file.data) for file in kept.values())
    if size > MAX_FILES_BYTES:
        raise WrongSetting(
            "files",
            f"{size} bytes of files are more than the {MAX_FILES_BYTES} that a node may have",
            "put what is large into the image",
        )
    return replace(overlay, vars={k: v for k, v in words.items() if v is not None}, files=kept)


def _merged(options: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """Options with some replaced and, where null, taken back. Raises PxebootError."""
    try:
        changed = {custom.code_of(name) for name in patch}
        kept = {name: value for name, value in options.items() if custom.code_of(name) not in changed}
        merged = kept | {name: value for name, value in patch.items() if value is not None}
        custom.encode_all(merged)
    except ValueError as error:
        name, _, reason = str(error).partition(": ")
        raise PxebootError(f"options.{name}: {reason}", custom.remedy(name)) from None
    return merged


def _uuid(name: str) -> UUID | None:
    """A UUID, None for what is not written like one. Raises PxebootError for one that is no machine's."""
    try:
        return machine_uuid(UUID(name)) if _UUID.fullmatch(name.lower()) else None
    except ValueError as error:
        raise PxebootError(str(error), "name the machine by its MAC address") from None


def _only(nodes: list[Node]) -> Node | None:
    if len(nodes) > 1:
        names = ", ".join(node.name for node in nodes)
        raise PxebootError(f"{names} tell the same UUID", "name one of them by its MAC address")
    return nodes[0] if nodes else None


def _announced(name: str) -> Node:
    """A node that has not shown itself yet. Raises PxebootError."""
    uuid = _uuid(name)
    try:
        mac = unseen_mac(uuid) if uuid else Mac.parse(name)
    except ValueError:
        raise PxebootError(
            f"there is no node {name!r}",
            "announce a new one by its MAC address, like 52:54:00:12:34:56, or its UUID",
        ) from None
    return Node(mac, default_name(mac), uuid)
