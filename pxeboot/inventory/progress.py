"""Where each machine is: steps reported by every server, kept in the store, told on the bus."""

import logging
import secrets
import time
from collections import Counter
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

from pxeboot.events import Bus
from pxeboot.inventory.boot import BEFORE_KERNEL_RUNS, TRANSFERS_KEPT, UP, Boot, Stage, continues
from pxeboot.inventory.node import Node, seen
from pxeboot.inventory.store import Store
from pxeboot.mac import Mac
from pxeboot.pxe.client import Client

log = logging.getLogger(__name__)

HEARD_SECONDS = 1.0
"""A loader that asks again and again is not noted more often."""
MAX_SIGHTED = 65536
"""Addresses remembered that other DHCP servers gave; beyond it the one longest unseen is forgotten."""


class Progress:
    """The one place where boot records change."""

    def __init__(self, store: Store, bus: Bus) -> None:
        self._store = store
        self._bus = bus
        self._listening_since = time.time()
        self.entered: Counter[Stage] = Counter()
        """How many boots have entered each stage."""
        self.sent_bytes: Counter[str] = Counter()
        """By protocol."""
        self._sighted: dict[IPv4Address, Mac] = {}  # the one longest unseen first

    async def seen(self, client: Client) -> Node:
        """Note a machine that asks to boot, and return its node."""
        known = await self._store.node(client.mac)
        node = seen(client.mac, client.uuid, known, time.time())
        if node is not known and not client.is_probe:
            await self._store.save_node(node)
            self._bus.publish("node", mac=node.mac)
            log.info("%s: first seen, as %s", node.mac, node.name)
        return node

    async def discovered(self, client: Client) -> None:
        """A machine asks for an address to boot from: a new boot, or a later part of the present one."""
        if client.is_probe:
            return
        now = time.time()
        boot = await self._store.boot(client.mac)
        if boot is not None and continues(boot, client.is_ipxe, now):
            await self._save(replace(boot, heard=now, firmware=client.firmware, retries=boot.retries + 1))
            return
        if boot is not None and boot.stage in UP:
            log.info("%s: asks to boot again; it was %s", client.mac, boot.stage.value)
        await self._save(Boot.begin(secrets.token_hex(8), client.mac, client.firmware, now))

    async def addressed(self, client: Client, address: IPv4Address) -> None:
        """A machine that is booting has its address."""
        boot = await self._store.boot(client.mac)
        if boot is not None and continues(boot, client.is_ipxe, time.time()):
            await self.reach(client.mac, Stage.ADDRESS, address=address)

    def sighted(self, mac: Mac, address: IPv4Address) -> None:
        """A machine was seen to take an address that another DHCP server gave."""
        self._sighted.pop(address, None)
        self._sighted[address] = mac
        if len(self._sighted) > MAX_SIGHTED:
            del self._sighted[next(iter(self._sighted))]

    async def machine_at(self, address: IPv4Address) -> Mac | None:
        """Whose address that is: by our lease, or where we give none, by what was seen. None: not known."""
        lease = await self._store.lease_at(address)
        if lease is not None and lease.active(time.time()):
            return lease.mac
        return self._sighted.get(address)

    async def reach(self, mac: Mac, stage: Stage, **facts: Any) -> Boot | None:
        """A server saw the machine take a step; a late or repeated one changes only the facts."""
        boot = await self._store.boot(mac)
        if boot is None:
            return None
        now = time.time()
        known = boot.may(stage)
        boot = boot.step(stage, now, **facts) if known else replace(boot, heard=now, **facts)
        await self._save(boot)
        return boot

    async def ordered(self, mac: Mac, image: str, loader: str) -> Boot:
        """The machine's loader asks what to boot: in this boot, or in one whose DHCP we did not see."""
        boot = await self._store.boot(mac)
        if boot is not None and (boot.stage, boot.image, boot.loader) == (Stage.SCRIPT, image, loader):
            if time.time() - boot.heard > HEARD_SECONDS:
                boot = replace(boot, heard=time.time())
                await self._save(boot, durable=False)  # what it was told is on disk
            return boot
        if boot is None or boot.stage not in BEFORE_KERNEL_RUNS:
            boot = Boot.begin(secrets.token_hex(8), mac, "", time.time())
            await self._save(boot)
        ordered = await self.reach(mac, Stage.SCRIPT, image=image, loader=loader)
        assert ordered is not None
        return ordered

    async def report(
        self,
        boot: Boot,
        stage: Stage,
        detail: str,
        done: int,
        total: int,
        address: IPv4Address | None = None,
        services: str = "",
    ) -> None:
        """The node says where it is, from `address`, which may be new: its system asks DHCP anew.

        Raises WrongStep where it cannot be there; `ready` again is a heartbeat.
        """
        if address is not None:
            self.sighted(boot.mac, address)
        if stage is Stage.READY and boot.stage in UP:
            heard = replace(boot, heard=time.time(), detail=detail, services=services)
            await self._save(heard, durable=services != boot.services)
            return
        failure = detail if stage is Stage.FAILED else ""
        moved = boot.step(
            stage,
            time.time(),
            detail=detail,
            done=done,
            total=total,
            failure=failure,
            address=address or boot.address,
            services=services,
        )
        if stage is Stage.FAILED:
            log.warning("%s: failed: %s", boot.mac, detail)
        await self._save(moved, durable=stage is not boot.stage)

    async def placed(self, mac: Mac, stage: Stage) -> None:
        """The balancer has put the machine into service or taken it out. That is no sign of life."""
        boot = await self._store.boot(mac)
        if boot is not None and boot.stage is not stage and boot.stage in UP and boot.may(stage):
            await self._save(replace(boot.step(stage, time.time()), heard=boot.heard, detail=boot.detail))

    async def sent(self, mac: Mac, what: str, size: int, retries: int = 0) -> None:
        """A server sent the machine `size` bytes of `what`, like "http kernel"."""
        self.sent_bytes[what.partition(" ")[0]] += size
        boot = await self._store.boot(mac)
        if boot is not None:
            sent = {**boot.sent, what: boot.sent.get(what, 0) + size}
            await self._save(replace(boot, sent=sent, retries=boot.retries + retries), durable=False)

    async def transferred(self, mac: Mac, what: str, transfer: dict[str, Any]) -> None:
        """A read by TFTP has ended: `sent`, and its facts as JSON values (see `Boot.transfers`)."""
        boot = await self._store.boot(mac)
        if boot is not None:
            kept = (*boot.transfers, transfer)[-TRANSFERS_KEPT:]
            await self._save(replace(boot, transfers=kept), durable=False)
            await self.sent(mac, what, transfer["bytes"], transfer["retransmissions"])

    async def expire(self) -> None:
        """Find the boots that have been silent for too long.

        Silence before this process was there to listen does not count: a restart of the server must not
        declare a whole rack lost.
        """
        now = time.time()
        for node in await self._store.nodes():
            boot = await self._store.boot(node.mac)
            if boot is None:
                continue
            heard = max(boot.heard, self._listening_since)
            verdict = replace(boot, heard=heard).overdue(now)
            if verdict is not None:
                stage, failure = verdict
                log.warning("%s: %s: %s", boot.mac, stage.value, failure)
                await self._save(replace(boot.step(stage, now, failure=failure), heard=boot.heard))

    async def _save(self, boot: Boot, *, durable: bool = True) -> None:
        before = await self._store.boot(boot.mac)
        if before is None or before.id != boot.id or before.stage is not boot.stage:
            self.entered[boot.stage] += 1
            log.info("%s: %s%s", boot.mac, boot.stage.value, f" ({boot.detail})" if boot.detail else "")
        await self._store.save_boot(boot, durable=durable)
        self._bus.publish("boot", mac=boot.mac, stage=boot.stage.value)
