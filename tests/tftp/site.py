"""A server on loopback with its files and records, and a client that says exactly what it is told to."""

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pxeboot.errors import PxebootError
from pxeboot.tftp.content import Content, Memory
from pxeboot.tftp.packet import Ack, Data, Packet, ReadRequest, decode, encode
from pxeboot.tftp.server import TftpServer, TransferRecord
from pxeboot.tftp.transfer import TftpLimits

HERE = "127.0.0.1"
LIMIT_S = 10.0  # for every wait
SIZES = (0, 1, 511, 512, 513, 1427, 1428, 1429, 300_000)
FILES = {f"size/{size}": random.Random(size).randbytes(size) for size in SIZES}
FILES["text"] = b"one\ntwo\n"


class Site:
    """A server on loopback, the files it has, and the records it made."""

    def __init__(self, limits: TftpLimits, single_port: bool) -> None:
        self.single_port = single_port
        self.opened: dict[str, Content] = {}
        self.records: list[TransferRecord] = []
        self.asked: list[tuple[str, str]] = []
        self.recorded = asyncio.Event()
        self.slow = asyncio.Event()
        self.server = TftpServer(HERE, self.content, limits, self.finished, port=0, single_port=single_port)

    async def content(self, name: str, peer: str) -> Content | None:
        self.asked.append((name, peer))
        if name == "secret":
            raise PxebootError("not for this machine")
        if name == "broken":
            raise RuntimeError("a bug")
        if name == "slow":
            await self.slow.wait()
        if name in self.opened:
            return self.opened[name]
        return Memory(FILES[name]) if name in FILES else None

    def finished(self, record: TransferRecord) -> None:
        self.records.append(record)
        self.recorded.set()

    async def results(self, count: int = 1) -> list[str]:
        async with asyncio.timeout(LIMIT_S):
            while len(self.records) < count:
                self.recorded.clear()
                await self.recorded.wait()
        return [record.result for record in self.records]


class Client:
    """A socket that says exactly what it is told to."""

    def __init__(self, port: int) -> None:
        self.server = (HERE, port)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.bind((HERE, 0))

    def send(self, packet: Packet | bytes, to: tuple[str, int] | None = None) -> None:
        data = packet if isinstance(packet, bytes) else encode(packet)
        self.socket.sendto(data, to or self.server)

    async def receive(self) -> tuple[Packet, tuple[str, int]]:
        async with asyncio.timeout(LIMIT_S):
            data, sender = await asyncio.get_running_loop().sock_recvfrom(self.socket, 65536)
        return decode(data), sender

    async def read(self, name: str) -> bytes:
        """A whole transfer in lock step, without options."""
        self.send(ReadRequest(name, "octet"))
        content = b""
        while True:
            packet, sender = await self.receive()
            assert isinstance(packet, Data)
            if packet.block != len(content) // 512 + 1:
                continue  # sent again: this computer was too busy for the ACK to be in time
            content += packet.payload
            self.send(Ack(packet.block), sender)
            if len(packet.payload) < 512:
                return content

    def silent(self) -> bool:
        try:
            self.socket.recv(2048)
        except BlockingIOError:
            return True
        return False


@asynccontextmanager
async def started(limits: TftpLimits, single_port: bool = False) -> AsyncIterator[Site]:
    site = Site(limits, single_port)
    await site.server.start()
    yield site
    await site.server.close()
