"""One server for each of our addresses: answers come from the one that was asked."""

import asyncio
import socket

import pytest

from pxeboot.tftp.content import Content, Memory
from pxeboot.tftp.packet import Ack, Data, ReadRequest, decode, encode
from pxeboot.tftp.server import TftpServer, TransferRecord
from pxeboot.tftp.transfer import TftpLimits

ADDRESSES = ("127.0.0.1", "127.0.0.2")


@pytest.mark.parametrize("single_port", [False, True])
async def test_answers_come_from_the_address_that_was_asked(single_port: bool) -> None:
    async def content_of(name: str, peer: str) -> Content:
        return Memory(name.encode())

    records: list[TransferRecord] = []
    limits = TftpLimits()
    servers = [
        TftpServer(address, content_of, limits, records.append, port=0, single_port=single_port)
        for address in ADDRESSES
    ]
    for server, address in zip(servers, ADDRESSES, strict=True):
        await server.start()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as client:
            client.bind(("127.0.0.9", 0))
            client.sendto(encode(ReadRequest(address, "octet")), (address, server.port))
            data, sender = await _receive(client)
            assert (decode(data), sender[0]) == (Data(1, address.encode()), address)
            client.sendto(encode(Ack(1)), sender)
    for server in servers:
        await server.close()
    assert {record.peer for record in records} == {"127.0.0.9"}


async def _receive(client: socket.socket) -> tuple[bytes, tuple[str, int]]:
    async with asyncio.timeout(10):
        return await asyncio.get_running_loop().sock_recvfrom(client, 2048)
