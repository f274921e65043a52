"""pxeboot's TFTP alone, serving one folder: what `bench.tftp` sets beside the C daemons."""

import asyncio
import logging
import sys
from pathlib import Path

from pxeboot.tftp.content import Content
from pxeboot.tftp.folder import Folder
from pxeboot.tftp.server import TftpServer
from pxeboot.tftp.transfer import TftpLimits


async def serve(address: str, root: Path) -> None:
    """Until killed."""
    folder = Folder(root)

    async def find(name: str, _: str) -> Content | None:
        return await asyncio.to_thread(folder.open, name)

    await TftpServer(address, find, TftpLimits(), lambda record: None).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    asyncio.run(serve(sys.argv[1], Path(sys.argv[2])))
