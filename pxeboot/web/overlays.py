"""What one boot lays over its root: gathered from configuration, disk and store."""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address

from pxeboot import lasting
from pxeboot.config import GroupConfig
from pxeboot.errors import PxebootError
from pxeboot.inventory.node import Node, group_of
from pxeboot.inventory.overlay import Laid, NodeFile
from pxeboot.inventory.store import Store
from pxeboot.mac import Mac
from pxeboot.overlay import archive, lasting_files, lay
from pxeboot.site import Site

log = logging.getLogger(__name__)

PRIVILEGED_PORTS = 1024
"""Ports below are root's on the node (ip_unprivileged_port_start in the kernel's ip-sysctl). A boot's URL is
in /proc/cmdline, which every process of the node can read; the secrets among its files are for root."""


class Overlays:
    """Writes the archive of a boot when its initrd asks for it."""

    def __init__(self, site: Site, store: Store) -> None:
        self._site = site
        self._store = store

    async def for_boot(self, mac: Mac, image: str, address: IPv4Address | None, server: IPv4Address) -> bytes:
        """A tar of what lies over this machine's root. Raises PxebootError where something is missing."""
        node = await self._kept(mac)
        group = group_of(node, self._site.config)
        assert node.overlay.lasting is not None
        words = {
            **(group.vars if group else {}),
            **node.overlay.vars,
            "name": node.name,
            "mac": str(node.mac),
            "address": str(address or ""),
            "group": group.name if group else "",
            "domain": self._site.config.dns.domain if self._site.config.dns else "",
            "server": str(server),
            "image": image,
            "machine_id": node.overlay.lasting.machine_id,
        }
        of_group = await asyncio.to_thread(read_files, group) if group else {}
        files = lay((lasting_files(node.overlay.lasting), of_group, node.overlay.files), words)
        log.info("%s: lays %d files over its root", mac, len(files))
        return archive(files)

    async def _kept(self, mac: Mac) -> Node:
        """The node, with what it keeps for ever, made now if it never was; on disk before anybody sees it."""
        node = await self._store.node(mac)
        if node is None:
            raise PxebootError(f"{mac} has been forgotten", "start the machine again")
        if node.overlay.lasting is None:
            made = lasting.make(node.name)
            node = replace(node, overlay=replace(node.overlay, lasting=made))
            await self._store.save_node(node)
        return node


def read_files(group: GroupConfig) -> Mapping[str, NodeFile]:
    """The group's files from disk. Raises PxebootError naming the key of one that cannot be read."""
    found = {}
    for path, file in group.files.items():
        try:
            data = file.source.read_bytes()
        except OSError as error:
            raise PxebootError(
                f"group {group.name}: files.{path}: {file.source}: {error.strerror}",
                "paths are relative to the configuration file",
            ) from error
        found[path] = NodeFile(data, Laid(**{key: getattr(file, key) for key in Laid.model_fields}))
    return found
