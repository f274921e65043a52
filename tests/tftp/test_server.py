import asyncio
import logging
import os
import random
import shutil
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import tftpy

from pxeboot.errors import PxebootError
from pxeboot.tftp import server as server_module
from pxeboot.tftp import transfer as transfer_module
from pxeboot.tftp.content import Content, File, Memory, whole
from pxeboot.tftp.packet import Ack, Data, Error, OptionAck, Packet, ReadRequest, WriteRequest, decode, encode
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


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """This computer may be too busy for its clients to be in time, who are to be sent nothing twice."""
    monkeypatch.setattr(transfer_module, "FIRST_WAIT_S", 0.5)
    monkeypatch.setattr(transfer_module, "MIN_WAIT_S", 0.5)


@pytest.fixture(params=[False, True], ids=["port per server", "single port"])
async def site(request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    async with started(TftpLimits(), request.param) as site:
        yield site


@pytest.fixture
async def client(site: Site) -> AsyncIterator[Client]:
    client = Client(site.server.port)
    yield client
    client.socket.close()


async def run(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), LIMIT_S)
    except TimeoutError:
        process.kill()
        await process.communicate()
        raise
    assert process.returncode == 0, output
    return output.decode()


async def fetch_with_curl(port: int, name: str, local: str) -> None:
    await run("curl", "-sS", "--tftp-blksize", "1428", "-o", local, f"tftp://{HERE}:{port}/{name}")


async def fetch_with_curl_512(port: int, name: str, local: str) -> None:
    await run("curl", "-sS", "--tftp-no-options", "-o", local, f"tftp://{HERE}:{port}/{name}")


async def fetch_with_tftp(port: int, name: str, local: str) -> None:
    await run("tftp", "-m", "binary", HERE, str(port), "-c", "get", name, local)


async def fetch_with_busybox(port: int, name: str, local: str) -> None:
    await run("busybox", "tftp", "-g", "-b", "1428", "-r", name, "-l", local, HERE, str(port))


async def fetch_with_atftp(port: int, name: str, local: str) -> None:
    options = ("blksize 1428", "windowsize 16", "tsize 0")
    flags = [flag for option in options for flag in ("--option", option)]
    await run("atftp", *flags, "--get", "-r", name, "-l", local, HERE, str(port))


async def fetch_with_tftpy(port: int, name: str, local: str) -> None:
    client = tftpy.TftpClient(HERE, port, {"blksize": 1428, "tsize": 0})
    await asyncio.wait_for(asyncio.to_thread(client.download, name, local), LIMIT_S)


FETCHES = [
    fetch_with_curl,
    fetch_with_curl_512,
    fetch_with_tftp,
    fetch_with_busybox,
    fetch_with_atftp,
    fetch_with_tftpy,
]


@pytest.mark.parametrize("fetch", FETCHES)
async def test_clients_of_others_read_every_size(
    site: Site, fetch: Callable[[int, str, str], Awaitable[None]], tmp_path: Path
) -> None:
    program = fetch.__name__.split("_")[2]
    if program != "tftpy" and shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    names = [name for name in FILES if name.startswith("size/")]
    for name in names:
        local = tmp_path / name.replace("/", "-")
        await fetch(site.server.port, name, str(local))
        received = local.read_bytes() if local.exists() else b""  # atftp makes no file of 0 bytes
        assert received == FILES[name], name
    assert await site.results(len(names)) == ["done"] * len(names)
    assert [record.bytes for record in site.records] == list(SIZES)


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


async def test_a_size_probe_and_the_same_request_after_it_are_both_served(site: Site, client: Client) -> None:
    request = ReadRequest("text", "octet", {"tsize": "0"})
    for _ in range(2):
        client.send(request)
        packet, sender = await client.receive()
        assert packet == OptionAck({"tsize": "8"})
        client.send(Error(8, "User aborted"), sender)
        await site.results(1)
    assert await site.results(2) == ["size probe", "size probe"]


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


async def test_no_block_is_larger_than_the_path_takes(
    site: Site, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "path_mtu", lambda *_: 1400)
    client.send(ReadRequest("text", "octet", {"blksize": "1468"}))
    assert (await client.receive())[0] == OptionAck({"blksize": "1368"})


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
