"""Boot scripts as they stand on the wire, by the short way and by the router's."""

import asyncio
import re
import time
from email.utils import parsedate_to_datetime

import pytest

from tests.web.house import MAC, House

HEAD = re.compile(
    rb"HTTP/1\.1 200 OK\r\n"
    rb"Content-Type: text/plain; charset=utf-8\r\n"
    rb"Content-Length: (\d+)\r\n"
    rb"Date: (.+)\r\n\r\n"
)


async def raw(house: House, sent: bytes) -> bytes:
    """What comes back for these bytes until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", house.http.port)
    writer.write(sent)
    text = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return text


def asking(spelled: str, more: str = "", version: str = "1.1", method: str = "GET") -> bytes:
    return f"{method} /ipxe/{spelled} HTTP/{version}\r\nHost: x\r\n{more}\r\n".encode()


CLOSE = "Connection: close\r\n"


async def test_scripts_in_a_row_come_over_one_connection(house: House) -> None:
    text = (await house.script()).encode()
    rest = await raw(house, asking(MAC) * 3 + asking(MAC, CLOSE))
    for _ in range(3):
        head = HEAD.match(rest)
        assert head is not None
        assert int(head[1]) == len(text)
        assert abs(parsedate_to_datetime(head[2].decode()).timestamp() - time.time()) < 5
        assert rest[head.end() :].startswith(text)
        rest = rest[head.end() + len(text) :]
    head_of_last, _, last = rest.partition(b"\r\n\r\n")
    assert (b"Connection: close" in head_of_last, last) == (True, text)


@pytest.mark.parametrize("spelled", [MAC.upper(), MAC.dashed, MAC.replace(":", ""), MAC.replace(":", "%3A")])
async def test_every_spelling_of_an_address_has_the_same_script(house: House, spelled: str) -> None:
    text = await house.script()
    answer = await raw(house, asking(spelled) + asking(spelled, CLOSE))
    assert answer.count(text.encode()) == 2


async def test_an_old_client_is_answered_and_closed(house: House) -> None:
    answer = await raw(house, asking(MAC, version="1.0"))
    assert answer.startswith(b"HTTP/1.0 200 OK\r\n")
    assert answer.endswith((await house.script()).encode())


@pytest.mark.parametrize(
    ("method", "spelled", "status"),
    [
        ("HEAD", MAC, 405),
        ("POST", MAC, 405),
        ("GET", "52:54", 404),
        ("GET", f"{MAC}/", 404),
        ("GET", "", 404),
    ],
)
async def test_what_is_no_request_for_a_script_is_refused(
    house: House, method: str, spelled: str, status: int
) -> None:
    answer = await raw(house, asking(spelled, CLOSE, method=method))
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
