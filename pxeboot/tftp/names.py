"""What the names that clients ask for stand for: loaders, configurations, artefacts, files."""

import asyncio
import logging
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address

from pxeboot.errors import PxebootError
from pxeboot.image.bootfiles import BootFiles
from pxeboot.image.library import Library
from pxeboot.inventory.boot import Stage
from pxeboot.inventory.progress import Progress
from pxeboot.inventory.store import Store
from pxeboot.mac import Mac
from pxeboot.orders import Orders, Refusal
from pxeboot.pxe.script import GRUB_CONFIG, Instructions, grub_config, pxelinux_config, pxelinux_name
from pxeboot.tftp.content import Content, File, Memory
from pxeboot.tftp.folder import Folder
from pxeboot.tftp.server import TransferRecord
from pxeboot.web.images import LoaderFile
from pxeboot.web.token import TokenRefusedError, verify

log = logging.getLogger(__name__)

_ARTEFACT = re.compile(r"boot/([^/]+)/(kernel|initrd|root)")
_STAGES = {"kernel": Stage.KERNEL, "initrd": Stage.INITRD}


@dataclass(slots=True)
class Names:
    """All names there are: of loaders, of configurations and artefacts, and below `tftp.root`."""

    loaders: Mapping[str, LoaderFile]
    """By name; replaced when the configuration is reread."""
    folder: Folder | None
    orders: Orders
    library: Library
    files: BootFiles
    store: Store
    progress: Progress
    secret: bytes

    async def content(self, server: IPv4Address, name: str, peer: str) -> Content | None:
        """What `peer` gets for `name`, or None; `server` is our address as it reached it. Raises
        PxebootError and OSError.
        """
        loader = self.loaders.get(name)
        if loader is not None:
            machine = await self.progress.machine_at(IPv4Address(peer))
            if machine is not None:
                await self.progress.reach(machine, Stage.LOADER, loader=name)
            return Memory(loader.data)
        mac = pxelinux_name(name)
        if mac is not None:
            return await self._configuration(mac, server, "PXELINUX", pxelinux_config)
        if name == GRUB_CONFIG:
            mac = await self.progress.machine_at(IPv4Address(peer))
            return None if mac is None else await self._configuration(mac, server, "GRUB", grub_config)
        artefact = _ARTEFACT.fullmatch(name)
        if artefact is not None:
            return await self._artefact(artefact[1], artefact[2])
        return None if self.folder is None else await asyncio.to_thread(self.folder.open, name)

    async def note(self, record: TransferRecord) -> None:
        """Put a transfer that has ended into the boot record of its machine."""
        machine = await self.progress.machine_at(IPv4Address(record.peer))
        if machine is not None:
            name = _short(record.name)
            facts = {
                "name": name,
                "asked": dict(record.asked),
                "granted": dict(record.granted),
                "bytes": record.bytes,
                "retransmissions": record.retransmissions,
                "seconds": round(record.duration_s, 3),
                "result": record.result,
            }
            await self.progress.transferred(machine, f"tftp {name}", facts)

    async def _configuration(
        self, mac: Mac, server: IPv4Address, loader: str, write: Callable[[Instructions], str]
    ) -> Content | None:
        told = await self.orders.for_machine(mac, server, loader)
        return None if isinstance(told, Refusal) else Memory(write(told).encode())

    async def _artefact(self, token: str, name: str) -> Content:
        """What HTTP has under the same path, for loaders that speak only TFTP."""
        try:
            claim = verify(token, self.secret, time.time())
        except TokenRefusedError as error:
            raise PxebootError(f"this token is refused: {error}", "let the machine boot anew") from error
        boot = await self.store.boot(claim.mac)
        if boot is None or boot.id != claim.boot_id:
            raise PxebootError("this token is refused: it is of an earlier boot", "let the machine boot anew")
        image = self.library.get(claim.image)
        stage = _STAGES.get(name)
        if stage is not None:
            await self.progress.reach(claim.mac, stage)
        log.info("%s: loads %s by TFTP", claim.mac, name)
        file = await self.files.find(image, name, claim.mac)
        return File(os.open(file.path, os.O_RDONLY | os.O_CLOEXEC))


def _short(name: str) -> str:
    """The name for a record: tokens are secrets, and long."""
    found = _ARTEFACT.fullmatch(name)
    return found[2] if found else name
