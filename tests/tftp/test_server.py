import asyncio
import logging
import os
from pathlib import Path

import pytest

from pxeboot.errors import PxebootError
from pxeboot.tftp.content import File, Memory, whole
from pxeboot.tftp.packet import Ack, Data, Error, OptionAck, Packet, ReadRequest, WriteRequest
from pxeboot.tftp.server import TftpServer
from pxeboot.tftp.transfer import TftpLimits
from tests.tftp.site import FILES, HERE, LIMIT_S, Client, Site


async def test_a_record_says_what_was_sent_to_whom(site: Site, client: Client) -> None:
    client.send(ReadRequest("\\text", "octet", {"tsize": "0", "blksize": "1428", "odd": "1"}))
    packet, sender = await client.receive()
    assert packet == OptionAck({"tsize": "8", "blksize": "1428"})
    assert (sender[1] == site.server.port) == site.single_port
    client.send(Ack(0), sender)
    assert await client.receive() == (Data(1, FILES["text"]), sender)
    client.send(Ack(1), sender)
    assert await site.results() == ["done"]
    record = site.records[0]
    assert (record.peer, record.name, record.bytes, record.retransmissions) == (HERE, "text", 8, 0)
    assert record.asked == {"tsize": "0", "blksize": "1428", "odd": "1"}
    assert record.granted == {"tsize": 8, "blksize": 1428}
    assert 0 < record.duration_s < LIMIT_S
    assert site.asked == [("text", HERE)]


async def test_no_token_stands_in_the_log(
    site: Site, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    site.opened["boot/s3cret/kernel"] = Memory(b"kernel")
    for request in (
        ReadRequest("\\boot\\s3cret\\kernel", "octet"),
        ReadRequest("boot/s3cret/initrd", "octet"),
    ):
        client.send(request)
        client.send(request)
        _, sender = await client.receive()
        client.send(Ack(1), sender)
    client.send(WriteRequest("/boot/s3cret/root", "octet"))
    await client.receive()
    assert await site.results() == ["done"]
    assert "boot/…/kernel: done" in caplog.text
    assert "boot/…/root refused" in caplog.text
    assert "s3cret" not in caplog.text


async def test_what_became_of_reads_is_counted(site: Site, client: Client) -> None:
    cases: list[tuple[Packet, list[Packet]]] = [
        (ReadRequest("text", "octet"), [Ack(1)]),
        (ReadRequest("text", "octet", {"tsize": "0"}), [Error(8, "")]),
        (ReadRequest("size/513", "octet"), [Ack(1), Error(3, "no room")]),
        (ReadRequest("none", "octet"), []),
    ]
    for request, answers in cases:
        client.send(request)
        for answer in answers:
            _, sender = await client.receive()
            client.send(answer, sender)
    await client.receive()
    await site.results(3)
    server = site.server
    assert server.results == {"done": 1, "size probe": 1, "failed": 1, "refused": 1}
    assert server.acknowledged_bytes == 8 + 512
    assert server.retransmissions == sum(record.retransmissions for record in site.records)
    assert (server.under_way, server.queued) == (0, 0)


async def test_a_stranger_at_the_transfers_port_gets_error_5_and_the_transfer_goes_on(
    site: Site, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    stranger = Client(site.server.port)
    client.send(ReadRequest("size/513", "octet"))
    _, sender = await client.receive()
    stranger.send(Error(0, "an error is never answered"), sender)
    stranger.send(b"rubbish is not answered", sender)
    stranger.send(Ack(1), sender)
    assert await stranger.receive() == (Error(5, "Unknown transfer ID"), sender)
    assert (stranger.silent(), client.silent()) == (True, True)
    stranger.socket.close()
    client.send(b"\0\x63rubbish from the client itself", sender)
    client.send(Ack(1), sender)
    assert (await client.receive())[0] == Data(2, FILES["size/513"][512:])
    client.send(Ack(2), sender)
    assert await site.results() == ["done"]
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_silence_is_answered_by_the_same_block(site: Site, client: Client) -> None:
    client.send(ReadRequest("text", "octet", {"timeout": "1"}))
    first = await client.receive()
    assert await client.receive() == first
    _, sender = first
    client.send(Ack(0), sender)  # ends the back-off: the timer, set to 2 s, must come to 1 s again
    first = await client.receive()
    heard = asyncio.get_running_loop().time()
    assert await client.receive() == first
    assert asyncio.get_running_loop().time() - heard < 1.6
    client.send(Ack(1), sender)
    assert await site.results() == ["done"]
    assert site.records[0].retransmissions == 2


async def test_a_window_arrives_whole_and_in_order(site: Site, client: Client) -> None:
    client.send(ReadRequest("size/300000", "octet", {"windowsize": "64", "blksize": "1428"}))
    _, sender = await client.receive()
    client.send(Ack(0), sender)
    content, block = b"", 0
    while len(content) < 300_000:
        packet, _ = await client.receive()
        block += 1
        assert isinstance(packet, Data)
        assert packet.block == block
        content += packet.payload
        if block % 64 == 0 or len(packet.payload) < 1428:
            client.send(Ack(block), sender)
    assert content == FILES["size/300000"]
    assert await site.results() == ["done"]


async def test_a_file_that_the_disk_must_fetch_first_arrives(
    site: Site, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(File, "read_now", lambda *_: False)
    (tmp_path / "file").write_bytes(FILES["size/300000"])
    file = File(os.open(tmp_path / "file", os.O_RDONLY))
    site.opened["disk"] = file
    assert await client.read("disk") == FILES["size/300000"]
    assert await site.results() == ["done"]
    with pytest.raises(OSError, match="Bad file descriptor"):
        whole(file)  # it was closed


async def test_a_file_that_cannot_be_read_any_more_ends_with_an_error(
    site: Site, client: Client, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(FILES["size/300000"])
    site.opened["short"] = File(os.open(path, os.O_RDONLY))
    client.send(ReadRequest("short", "octet", {"blksize": "1428"}))
    _, sender = await client.receive()
    os.truncate(path, 1000)
    client.send(Ack(0), sender)
    message = "Server cannot read it: the file was cut short while it was sent"
    assert (await client.receive())[0] == Error(0, message)
    assert await site.results() == [message]


async def test_acks_of_a_transfer_that_has_ended_are_not_answered(site: Site, client: Client) -> None:
    client.send(ReadRequest("text", "octet"))
    _, sender = await client.receive()
    for _ in range(3):
        client.send(Ack(1), sender)
    await site.results()
    await asyncio.sleep(0.05)
    assert client.silent()


async def test_many_clients_are_served_at_once(site: Site) -> None:
    clients = [Client(site.server.port) for _ in range(100)]
    contents = await asyncio.gather(*(client.read("size/1429") for client in clients))
    assert contents == [FILES["size/1429"]] * 100
    for client in clients:
        client.socket.close()


async def test_closing_ends_a_transfer_with_a_record(site: Site, client: Client) -> None:
    client.send(ReadRequest("size/513", "octet"))
    await client.receive()
    await asyncio.wait_for(site.server.close(), LIMIT_S)
    assert [record.result for record in site.records] == ["the server stopped it"]


async def test_a_port_in_use_is_the_operators_to_free(site: Site) -> None:
    second = TftpServer(HERE, site.content, TftpLimits(), site.finished, port=site.server.port)
    with pytest.raises(PxebootError, match=f"{HERE} port {site.server.port}: in use") as raised:
        await second.start()
    assert f"sport = :{site.server.port}" in raised.value.hint


@pytest.mark.parametrize(
    ("address", "interface", "message"),
    [("192.0.2.1", None, "not an address of this machine"), (HERE, "absent0", "no interface 'absent0'")],
)
async def test_an_address_or_interface_that_is_not_there_is_named(
    site: Site, address: str, interface: str | None, message: str
) -> None:
    server = TftpServer(address, site.content, TftpLimits(), site.finished, port=0, interface=interface)
    with pytest.raises(PxebootError, match=message) as raised:
        await server.start()
    assert raised.value.hint
