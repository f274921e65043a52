import asyncio
import logging
import random

import pytest

from pxeboot.tftp import server as server_module
from pxeboot.tftp.packet import Ack, Data, Error, OptionAck, Packet, ReadRequest, WriteRequest
from pxeboot.tftp.transfer import TftpLimits
from tests.tftp.site import FILES, HERE, Client, Site, started


async def test_netascii_arrives_with_its_line_ends(site: Site, client: Client) -> None:
    client.send(ReadRequest("text", "netascii", {"tsize": "0"}))
    packet, sender = await client.receive()
    assert packet == OptionAck({"tsize": "10"})
    client.send(Ack(0), sender)
    assert (await client.receive())[0] == Data(1, b"one\r\ntwo\r\n")


@pytest.mark.parametrize(
    ("request_", "code", "message"),
    [
        (ReadRequest("none", "octet"), 1, "File not found"),
        (ReadRequest("secret", "octet"), 0, "not for this machine"),
        (ReadRequest("text", "mail"), 4, "Mode is neither octet nor netascii"),
        (ReadRequest("size/300000", "netascii"), 0, "netascii is for texts up to 65536 bytes"),
        (WriteRequest("text", "octet"), 2, "This server is read-only"),
    ],
)
async def test_what_cannot_be_had_is_refused_at_once(
    site: Site, client: Client, request_: Packet, code: int, message: str
) -> None:
    client.send(request_)
    assert (await client.receive())[0] == Error(code, message)
    assert site.records == []


async def test_a_bug_in_finding_content_reaches_the_client_and_the_log(
    site: Site, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    client.send(ReadRequest("broken", "octet"))
    assert (await client.receive())[0] == Error(0, "Server failed; see its log")
    await asyncio.sleep(0)
    assert "a bug" in caplog.text
    assert await client.read("text") == FILES["text"]


async def test_content_that_takes_too_long_is_given_up(
    site: Site, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "RESOLVE_SECONDS", 0.05)
    client.send(ReadRequest("slow", "octet"))
    assert (await client.receive())[0] == Error(0, "Server did not find the file in 0.05 s")


async def test_random_bytes_leave_the_server_serving(site: Site, client: Client) -> None:
    chance = random.Random(1)
    for number in range(300):
        opcode = bytes([0, chance.randrange(8)]) if number % 2 else b""
        client.send(opcode + chance.randbytes(chance.randrange(600)))
        await asyncio.sleep(0)
    client.send(Error(0, "not answered"))
    client.send(Ack(0))
    reader = Client(site.server.port)
    assert await reader.read("size/1429") == FILES["size/1429"]
    reader.socket.close()
    assert site.server.dropped > 100
    answers = 0
    while not client.silent():
        answers += 1
    assert answers <= 302 - site.server.dropped  # only what could be read as a request was answered


async def test_a_repeated_request_is_folded_into_its_transfer(site: Site, client: Client) -> None:
    for _ in range(3):
        client.send(ReadRequest("size/513", "octet"))
    first, sender = await client.receive()
    client.send(ReadRequest("size/513", "octet"))
    client.send(Ack(1), sender)
    second, same = await client.receive()
    assert (first, second, same) == (
        Data(1, FILES["size/513"][:512]),
        Data(2, FILES["size/513"][512:]),
        sender,
    )
    client.send(Ack(2), sender)
    assert await site.results() == ["done"]
    assert (len(site.asked), client.silent()) == (1, True)


async def test_another_request_from_the_same_port_replaces_the_transfer(site: Site, client: Client) -> None:
    client.send(ReadRequest("size/513", "octet", {"tsize": "0"}))
    await client.receive()
    client.send(ReadRequest("size/1429", "octet"))
    assert (await client.receive())[0] == Data(1, FILES["size/1429"][:512])
    assert await site.results() == ["replaced by a new request from the same port"]


async def test_a_size_probe_and_the_same_request_after_it_are_both_served(site: Site, client: Client) -> None:
    request = ReadRequest("text", "octet", {"tsize": "0"})
    for _ in range(2):
        client.send(request)
        packet, sender = await client.receive()
        assert packet == OptionAck({"tsize": "8"})
        client.send(Error(8, "User aborted"), sender)
        await site.results(1)
    assert await site.results(2) == ["size probe", "size probe"]


@pytest.mark.usefixtures("unhurried")
async def test_a_transfer_too_many_waits_and_one_more_still_is_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with started(TftpLimits(max_transfers=2)) as site:
        slow, halfway, waiting, last, refused = clients = [Client(site.server.port) for _ in range(5)]
        slow.send(ReadRequest("slow", "octet"))  # a request still looked up counts too
        halfway.send(ReadRequest("size/513", "octet"))
        _, sender = await halfway.receive()
        for _ in range(3):  # it asks again and again: it has one place
            waiting.send(ReadRequest("text", "octet"))
        last.send(ReadRequest("size/1", "octet"))
        refused.send(ReadRequest("text", "octet"))
        message = "Server is busy: 2 transfers, and as many waiting"
        assert (await refused.receive())[0] == Error(0, message)
        assert [r.message for r in caplog.records if r.levelno == logging.WARNING] == [
            f"{HERE}: text refused: {message}"
        ]
        assert (waiting.silent(), last.silent()) == (True, True)
        halfway.send(Error(0, "stop"), sender)
        packet, sender = await waiting.receive()
        assert packet == Data(1, FILES["text"])
        assert last.silent()
        waiting.send(Ack(1), sender)
        assert (await last.receive())[0] == Data(1, FILES["size/1"])
        for client in clients:
            client.socket.close()


@pytest.mark.usefixtures("unhurried")
async def test_a_client_that_has_left_the_queue_gets_no_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "QUEUE_SECONDS", 0.0)
    async with started(TftpLimits(max_transfers=1)) as site:
        first, gone = Client(site.server.port), Client(site.server.port)
        first.send(ReadRequest("text", "octet"))
        _, sender = await first.receive()
        gone.send(ReadRequest("size/1", "octet"))
        first.send(Ack(1), sender)
        await site.results()
        assert await first.read("size/513") == FILES["size/513"]
        assert gone.silent()
        first.socket.close()
        gone.socket.close()


async def test_no_block_is_larger_than_the_path_takes(
    site: Site, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "path_mtu", lambda *_: 1400)
    client.send(ReadRequest("text", "octet", {"blksize": "1468"}))
    assert (await client.receive())[0] == OptionAck({"blksize": "1368"})
