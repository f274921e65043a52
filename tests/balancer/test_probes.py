"""Each check against a real listener on loopback."""

import asyncio
import contextlib
import os
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any, cast

import dnslib
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from pxeboot.balancer import probes
from pxeboot.balancer.check import CheckConfig
from pxeboot.balancer.target import Outcome, Target
from pxeboot.mac import Mac

HERE = "127.0.0.1"


async def look(port: int, kind: str, address: str = HERE, **keys: Any) -> Outcome:
    check = CheckConfig.model_validate({"kind": kind, "timeout_seconds": 2.0} | keys)
    target = Target("www", Mac("52:54:00:00:00:01"), ip_address(address), port, "web1")
    return await probes.look(check, target)


@contextlib.asynccontextmanager
async def listening(
    answer: bytes = b"", address: str = HERE, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A TCP server that reads a head, says `answer` and closes; its port, and what it was asked."""
    asked: list[bytes] = []
    serving: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            asked.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(answer)
            await writer.drain()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, address, 0, ssl=tls)
    async with server:
        yield server.sockets[0].getsockname()[1], asked
        await asyncio.gather(*filter(None, serving))


def page(status: int = 200, body: bytes = b"<h1>well</h1>", head: str = "") -> bytes:
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{head}\r\n".encode() + body


def unused_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as line:
        line.bind((HERE, 0))
        port: int = line.getsockname()[1]
        return port


async def test_an_open_port_passes() -> None:
    async with listening() as (port, _):
        outcome = await look(port, "tcp")
    assert (outcome.good, outcome.text) == (True, "connected")


@pytest.mark.parametrize("kind", ["tcp", "http"])
async def test_a_closed_port_is_a_connection_refused(kind: str) -> None:
    outcome = await look(unused_port(), kind)
    assert (outcome.good, outcome.text) == (False, "connection refused")


async def test_an_ipv6_target_is_asked() -> None:
    async with listening(page(), "::1") as (port, asked):
        assert (await look(port, "http", "::1")).text == "status 200"
    assert f"Host: [::1]:{port}\r\n".encode() in asked[0]


async def test_silence_ends_at_the_time_limit() -> None:
    with socket.socket() as deaf:
        deaf.bind((HERE, 0))
        deaf.listen()
        outcome = await look(deaf.getsockname()[1], "http", timeout_seconds=0.1)
    assert (outcome.good, outcome.text) == (False, "no answer within 0.1 s")


@pytest.mark.parametrize(
    ("answer", "keys", "good", "text"),
    [
        (page(), {}, True, "status 200"),
        (page(503), {}, False, "status 503, wanted 200"),
        (page(302, head="Location: /\r\n"), {"status": [200, 204]}, False, "status 302, wanted 200 or 204"),
        (page(302, head="Location: /\r\n"), {"status": 302}, True, "status 302"),
        (page(), {"body": "we[l]+"}, True, "status 200"),
        (page(), {"body": "ill"}, False, "status 200, but 'ill' is not in its body"),
        (page(body=b"\xff" * 70000 + b"late"), {"body": "late"}, False,
         "status 200, but 'late' is not in its body"),
        (b"", {}, False, "it closed the connection without an answer"),
        (b"SSH-2.0-OpenSSH\r\n", {}, False, None),
        (b"HTTP/1.1 200 X\r\nContent-Length: 9\r\n\r\nwell", {"body": "x"}, False, None),
    ],
)  # fmt: skip
async def test_an_answer_is_judged(answer: bytes, keys: dict[str, Any], good: bool, text: str | None) -> None:
    async with listening(answer) as (port, _):
        outcome = await look(port, "http", **keys)
    assert outcome.good is good
    if text is None:
        assert outcome.text.startswith("no HTTP answer: ")
    else:
        assert outcome.text == text


async def test_path_and_host_are_asked_for_as_they_are_written() -> None:
    async with listening(page()) as (port, asked):
        await look(port, "http", path="/a%2Fb?x=1", host="shop.example")
    assert asked[0].startswith(b"GET /a%2Fb?x=1 HTTP/1.1\r\n")
    assert b"Host: shop.example\r\n" in asked[0]


async def test_a_body_without_end_is_read_no_further_than_its_bound() -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await answer.write(b"x" * 4096)
        return answer

    app = web.Application()
    app.router.add_get("/", endless)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, HERE, 0).start()
    try:
        outcome = await look(runner.addresses[0][1], "http", body="y", timeout_seconds=5.0)
    finally:
        await runner.cleanup()
    assert outcome.text == "status 200, but 'y' is not in its body"


@given(st.binary(max_size=200))
def test_any_bytes_in_answer_are_an_outcome(answer: bytes) -> None:
    async def ask() -> None:
        async with listening(answer) as (port, _):
            assert isinstance(await look(port, "http", timeout_seconds=0.5), Outcome)

    asyncio.run(ask())


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """A server's side with a certificate that nobody vouches for."""
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key", folder / "certificate"
    arguments = ["-newkey", "rsa:2048", "-nodes", "-subj", "/CN=shop.example", "-days", "2"]
    subprocess.run(
        ["openssl", "req", "-x509", *arguments, "-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context


async def test_https_takes_any_certificate_unless_it_is_to_be_verified(tls: ssl.SSLContext) -> None:
    async with listening(page(), tls=tls) as (port, _):
        assert (await look(port, "https")).text == "status 200"
        outcome = await look(port, "https", host="shop.example", verify=True)
    assert outcome.good is False
    assert outcome.text.startswith("certificate refused: ")


async def test_the_host_is_the_name_in_the_tls_handshake(tls: ssl.SSLContext) -> None:
    names: list[str | None] = []
    tls.sni_callback = lambda _, name, __: names.append(name)
    async with listening(page(), tls=tls) as (port, asked):
        await look(port, "https", host="shop.example:8443")
    assert names == ["shop.example"]
    assert b"Host: shop.example:8443\r\n" in asked[0]


async def test_plain_http_behind_https_is_told_as_a_fault_of_tls() -> None:
    async with listening(b"HTTP/1.1 400 no\r\n\r\n") as (port, _):
        outcome = await look(port, "https", timeout_seconds=0.5)
    assert outcome.good is False


@contextlib.asynccontextmanager
async def answering(answer: Callable[[dnslib.DNSRecord], list[bytes]]) -> AsyncIterator[int]:
    """A DNS server: for each question the datagrams that `answer` gives."""

    class Server(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = cast(asyncio.DatagramTransport, transport)

        def datagram_received(self, data: bytes, addr: Any) -> None:
            for datagram in answer(dnslib.DNSRecord.parse(data)):
                self.transport.sendto(datagram, addr)

    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Server, local_addr=(HERE, 0))
    try:
        yield transport.get_extra_info("sockname")[1]
    finally:
        transport.close()
        await asyncio.sleep(0)  # it closes in the loop's next round


def zone(question: dnslib.DNSRecord) -> list[bytes]:
    reply = question.reply()
    reply.add_answer(*dnslib.RR.fromZone('www.example 60 A 10.0.0.5\nwww.example 60 TXT "a text"'))
    return [reply.pack()]


def nothing(question: dnslib.DNSRecord) -> list[bytes]:
    reply = question.reply()
    reply.header.rcode = dnslib.RCODE.NXDOMAIN
    return [b"", b"noise", b"\xc0" * 40, question.pack(), reply.pack()]


@pytest.mark.parametrize(
    ("server", "keys", "good", "text"),
    [
        (zone, {}, True, "NOERROR, 2 records"),
        (zone, {"answer": "10.0.0.5"}, True, "NOERROR, 2 records"),
        (zone, {"answer": "a text"}, True, "NOERROR, 2 records"),
        (zone, {"answer": "10.0.0.6"}, False, '10.0.0.6 is not among its answers (10.0.0.5, "a text")'),
        (nothing, {}, False, "NXDOMAIN, wanted NOERROR"),
        (lambda _: [], {"timeout_seconds": 0.1}, False, "no answer within 0.1 s"),
    ],
)
async def test_a_dns_answer_is_judged_and_noise_before_it_is_not(
    server: Callable[[dnslib.DNSRecord], list[bytes]], keys: dict[str, Any], good: bool, text: str
) -> None:
    async with answering(server) as port:
        outcome = await look(port, "dns", query="www.example", **keys)
    assert (outcome.good, outcome.text) == (good, text)


async def test_no_dns_server_is_a_connection_refused() -> None:
    outcome = await look(unused_port(socket.SOCK_DGRAM), "dns", query="www.example")
    assert (outcome.good, outcome.text) == (False, "connection refused")


@pytest.mark.parametrize(
    ("command", "good", "text"),
    [
        (["true"], True, "it ended with 0"),
        (["sh", "-c", 'echo "$PXEBOOT_SERVICE $PXEBOOT_NODE $PXEBOOT_ADDRESS $PXEBOOT_PORT"; echo more'],
         True, "www web1 127.0.0.1 80"),
        (["sh", "-c", "echo load is high >&2; exit 3"], False, "it ended with 3: load is high"),
        (["sh", "-c", "kill -9 $$"], False, "it was ended by signal 9"),
        (["/nonexistent/check"], False, "cannot run /nonexistent/check: no such file or directory"),
        (["sh", "-c", "head -c 300000 /dev/zero | tr '\\0' x"], True, "x" * 79 + "…"),
    ],
)  # fmt: skip
async def test_a_script_is_judged_by_its_status(command: list[str], good: bool, text: str) -> None:
    outcome = await look(80, "script", command=command)
    assert (outcome.good, outcome.text) == (good, text)


def alive(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.mark.parametrize("end", ["wait", "exit 0"], ids=["too slow", "in good time"])
async def test_what_a_script_started_ends_with_it(tmp_path: Path, end: str) -> None:
    child = tmp_path / "child"
    command = ["sh", "-c", f"sleep 60 & echo $! >{child}; {end}"]
    outcome = await look(80, "script", command=command, timeout_seconds=1.0)
    assert outcome.good is (end == "exit 0")
    async with asyncio.timeout(5):
        while alive(int(child.read_text())):
            await asyncio.sleep(0.01)
