"""Bytes as clients get them: every form of range, old protocols, connections that break."""

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email import message_from_bytes
from pathlib import Path

import pytest

from pxeboot.web.sendfile import CHUNK_BYTES, LEAST_BYTES
from tests.parts import ROOT
from tests.web.house import House


async def multipart(house: House, wanted: str) -> list[tuple[str, bytes]]:
    """The parts of an answer of several: their Content-Range and their bytes."""
    path = await house.boot_path()
    async with house.http.get(f"{path}/root", headers={"Range": f"bytes={wanted}"}) as answer:
        body = await answer.read()
        assert (answer.status, int(answer.headers["Content-Length"])) == (206, len(body))
        kind = answer.headers["Content-Type"]
        assert kind.startswith("multipart/byteranges; boundary=")
    message = message_from_bytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body)
    parts = message.get_payload()
    assert isinstance(parts, list)
    raw = body.split(b"--" + kind.rpartition("=")[2].encode())[1:-1]  # the parser mends line ends in bodies
    places = [part["Content-Range"] for part in parts]  # type: ignore[index]
    return [(place, text.partition(b"\r\n\r\n")[2][:-2]) for place, text in zip(places, raw, strict=True)]


@pytest.mark.parametrize(
    ("wanted", "spans"),
    [
        ("0-0,-1", [range(1), range(len(ROOT) - 1, len(ROOT))]),
        ("500000-900000,3-4", [range(500000, 900001), range(3, 5)]),
        ("0-9,5-19,100-", [range(20), range(100, len(ROOT))]),
    ],
)
async def test_several_ranges_come_as_parts(house: House, wanted: str, spans: list[range]) -> None:
    size = len(ROOT)
    assert await multipart(house, wanted) == [
        (f"bytes {span.start}-{span.stop - 1}/{size}", ROOT[span.start : span.stop]) for span in spans
    ]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [("0-0", ROOT[:1]), ("-1", ROOT[-1:]), ("7-", ROOT[7:]), ("5-9,2000000-", ROOT[5:10])],
)
async def test_one_range_that_can_be_given_is_no_multipart(
    house: House, wanted: str, expected: bytes
) -> None:
    path = await house.boot_path()
    async with house.http.get(f"{path}/root", headers={"Range": f"bytes={wanted}"}) as answer:
        assert (answer.status, await answer.read()) == (206, expected)
        assert answer.headers["Content-Type"] == "application/octet-stream"


async def raw(house: House, *requests: bytes) -> bytes:
    """What comes back for these bytes until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", house.http.port)
    writer.write(b"".join(requests))
    text = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return text


async def test_http_1_0_without_a_host_is_answered_and_closed(house: House) -> None:
    path = (await house.boot_path()).encode()
    head, _, body = (await raw(house, b"GET %s/root HTTP/1.0\r\n\r\n" % path)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 200 OK\r\n")
    assert f"Content-Length: {len(ROOT)}".encode() in head
    assert b"Transfer-Encoding" not in head
    assert body == ROOT


async def test_http_1_0_may_ask_for_more_over_one_connection(house: House) -> None:
    path = (await house.boot_path()).encode()
    kept = b"HEAD %s/root HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" % path
    text = await raw(house, kept, b"GET %s/kernel HTTP/1.0\r\nRange: bytes=0-4\r\n\r\n" % path)
    first, second, body = text.split(b"\r\n\r\n")
    assert first.startswith(b"HTTP/1.0 200 OK\r\n")
    assert b"connection: keep-alive" in first.lower()
    assert (second[:12], body) == (b"HTTP/1.0 206", b"kerne")


async def test_pipelined_requests_are_answered_in_order(house: House) -> None:
    path = (await house.boot_path()).encode()
    ask = b"GET %s/root HTTP/1.1\r\nHost: x\r\nRange: bytes=%s\r\n%s\r\n"
    text = await raw(
        house,
        *(ask % (path, span, b"") for span in (b"0-99999", b"5-6,9-10", b"100000-199999")),
        ask % (path, b"-3", b"Connection: close\r\n"),
    )
    places = [ROOT[:100000], ROOT[5:7], ROOT[9:11], ROOT[100000:200000], ROOT[-3:]]
    at = 0
    for place in places:
        at = text.index(place, at) + len(place)
    assert text.endswith(ROOT[-3:])


@asynccontextmanager
async def cutting_proxy(port: int | None, dice: random.Random) -> AsyncIterator[int]:
    """A port before the server's, which passes on up to 400 kB of each answer and then breaks off."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind, ahead = await asyncio.open_connection("127.0.0.1", port)
        left = dice.randrange(1, 400_000)
        with contextlib.suppress(ConnectionError):
            head = await reader.readuntil(b"\r\n\r\n")
            ahead.write(head.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            while left and (data := await behind.read(min(left, 65536))):
                writer.write(data)
                left -= len(data)
            await writer.drain()
            if dice.random() < 0.5:
                await asyncio.sleep(0.02)  # what was sent arrives; otherwise some of it may be lost
        for end in (writer, ahead):
            end.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
    await asyncio.sleep(0.1)  # until the last connection has ended


CLIENTS = {
    "curl": ("curl", "-sS", "-f", "-C", "-", "-o"),
    "wget": ("wget", "-q", "-c", "--tries=1", "-O"),
}


@pytest.mark.parametrize("client", CLIENTS)
async def test_a_download_that_breaks_again_and_again_is_whole_in_the_end(
    house: House, tmp_path: Path, client: str
) -> None:
    path, target = await house.boot_path(), tmp_path / "root"
    async with cutting_proxy(house.http.port, random.Random(5)) as port:
        for _ in range(100):
            process = await asyncio.create_subprocess_exec(
                *CLIENTS[client], str(target), f"http://127.0.0.1:{port}{path}/root",
                env={"PATH": "/usr/bin:/bin", "no_proxy": "*"},
                stderr=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
            if await asyncio.wait_for(process.wait(), 20) == 0:
                break
            assert ROOT.startswith(target.read_bytes() if target.exists() else b"")
    assert target.read_bytes() == ROOT


async def test_a_client_that_takes_nothing_is_cut_off(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pxeboot.web.sendfile.STALL_SECONDS", 0.3)
    path = (await house.boot_path()).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", house.http.port, limit=1)
    for _ in range(40):  # more than both ends' buffers hold
        writer.write(b"GET %s/root HTTP/1.1\r\nHost: x\r\n\r\n" % path)
    await asyncio.sleep(1.5)
    with pytest.raises(ConnectionError):
        while await reader.read(1 << 20):
            pass
        raise AssertionError("the server closed in order")
    writer.close()


async def test_files_go_out_side_by_side_in_smaller_steps(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []
    sendfile = os.sendfile

    def noted(out: int, source: int, offset: int, count: int) -> int:
        steps.append(count)
        return sendfile(out, source, offset, count)

    monkeypatch.setattr("pxeboot.web.sendfile.os.sendfile", noted)
    house.put_root(ROOT * 32)  # more than the buffers of both ends hold
    path = await house.boot_path()
    halted = [await house.http.get(f"{path}/root") for _ in range(4)]
    assert (steps[0], steps[-1]) == (CHUNK_BYTES, LEAST_BYTES)
    for answer in halted:
        answer.close()

    async def first_step() -> int:
        steps.clear()
        async with house.http.get(f"{path}/root") as answer:
            assert await answer.read() == ROOT * 32
        return steps[0]

    async with asyncio.timeout(10):
        while await first_step() != CHUNK_BYTES:  # until the server has seen that the others are gone
            pass
