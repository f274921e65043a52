"""Boot scripts by the shortest way: a rack that is switched on asks for all of them at once."""

import re
import time
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from functools import lru_cache

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter

Script = Callable[[web.BaseRequest, str], Awaitable[web.StreamResponse]]
"""Answers a machine's request; the text is its MAC address as it wrote it."""

_PLAIN = re.compile(r"/ipxe/([0-9A-Fa-f:.-]+)")
_date = lru_cache(maxsize=1)(lambda second: formatdate(second, usegmt=True))


def scripts_first(server: web.Server, script: Script) -> None:
    """Answer a plain GET of a script before the application's router, which takes longer than the script.

    What is spelled in another way, as with `%3A`, is left to the router.
    """
    route = server.request_handler

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        found = _PLAIN.fullmatch(request.raw_path) if request.method == "GET" else None
        return await (route(request) if found is None else script(request, found[1]))

    server.request_handler = answer


def text_answer(request: web.BaseRequest, text: str) -> web.StreamResponse:
    """A text as the answer to a GET; in one write where the connection stays open anyway."""
    if request.version == HttpVersion11 and request.keep_alive:
        return _WholeAnswer(text.encode())
    return web.Response(text=text)


class _WholeAnswer(web.StreamResponse):
    """Head and text that need no negotiation. aiohttp's own head takes four times as long to make."""

    _writer: AbstractStreamWriter

    def __init__(self, text: bytes) -> None:
        super().__init__()
        self._text = text

    @property
    def keep_alive(self) -> bool:
        """The connection stays open."""
        return True

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter:
        """Nothing is sent before `write_eof`."""
        self._writer = request.writer
        return self._writer

    async def write_eof(self, data: bytes = b"") -> None:
        """Send all of it."""
        head = (
            "HTTP/1.1 200 OK\r\n"
            "Content-Type: text/plain; charset=utf-8\r\n"
            f"Content-Length: {len(self._text)}\r\n"
            f"Date: {_date(int(time.time()))}\r\n\r\n"
        )
        await self._writer.write_eof(head.encode() + self._text)
