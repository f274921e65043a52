"""Artefacts over HTTP: conditions and ranges as a pure function, then the file by sendfile."""

import asyncio
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from aiohttp import web

SLICE_BYTES = 4 << 20
SLICE_SECONDS = 120.0
"""A client that does not take a slice within this time is cut off; it may resume."""

_RANGE = re.compile(r"bytes[ \t]*=[ \t]*(\d*)-(\d*)[ \t]*")
_ETAG = re.compile(r'(?:W/)?"[^"]*"')


@dataclass(frozen=True, slots=True)
class Selection:
    """Which bytes answer a request: `length` from `start` on, with this status."""

    status: int
    start: int
    length: int


@dataclass(frozen=True, slots=True)
class LoaderFile:
    """A boot loader in memory: of some hundred kilobytes, and asked for by a whole rack at once."""

    name: str
    data: bytes
    sha256: str

    @classmethod
    def of(cls, name: str, data: bytes) -> Self:
        """Count its digest."""
        return cls(name, data, hashlib.sha256(data).hexdigest())


def select(headers: Mapping[str, str], size: int, etag: str) -> Selection:
    """Weigh conditions and range (RFC 9110 §13.2.2, §14) of a GET or HEAD on `size` bytes.

    `etag` is strong, with its quotes. A range that is no single range of bytes is ignored, as §14.2 allows:
    the answer is then the whole.
    """
    if "If-Match" in headers and not _listed(etag, headers["If-Match"]):
        return Selection(412, 0, 0)
    if "If-None-Match" in headers and _listed(etag, headers["If-None-Match"].replace("W/", "")):
        return Selection(304, 0, 0)
    whole = Selection(200, 0, size)
    if "Range" not in headers or headers.get("If-Range", etag) != etag:
        return whole
    found = _RANGE.fullmatch(headers["Range"])
    if found is None or found.groups() == ("", ""):
        return whole
    return _part(found[1], found[2], size) or whole


def _part(first: str, last: str, size: int) -> Selection | None:
    """The bytes of `first-last` (§14.1.2); None where the range is invalid."""
    if not first:  # the last so many bytes
        length = min(int(last), size)
        return Selection(206, size - length, length) if length else Selection(416, 0, 0)
    if last and int(last) < int(first):
        return None
    if int(first) >= size:
        return Selection(416, 0, 0)
    end = min(int(last), size - 1) if last else size - 1
    return Selection(206, int(first), end - int(first) + 1)


def _listed(etag: str, condition: str) -> bool:
    return condition.strip() == "*" or etag in _ETAG.findall(condition)


async def send_artefact(
    request: web.Request, path: Path, sha256: str, size: int
) -> tuple[web.StreamResponse, int]:
    """Answer GET or HEAD with a file of the library whose digest and size are known.

    Returns the response and how many bytes of the file were sent. Raises ConnectionError where the client
    goes away or takes nothing for SLICE_SECONDS.
    """
    response, chosen = _begin(request, sha256, size, "application/octet-stream")
    await response.prepare(request)
    if request.method == "GET" and chosen.length:
        # Opening in a thread would leak the file where the client goes away meanwhile, and takes longer.
        with path.open("rb") as file:
            await _send(request, file, chosen)
    await response.write_eof()
    return response, chosen.length if request.method == "GET" else 0


async def send_loader(request: web.Request, loader: LoaderFile) -> tuple[web.StreamResponse, int]:
    """Answer GET or HEAD with a boot loader. Returns the response and how many bytes of it were sent.

    The type is what UEFI HTTP Boot knows an executable by (UEFI 2.10 §24.7.3.2).
    """
    response, chosen = _begin(request, loader.sha256, len(loader.data), "application/efi")
    await response.prepare(request)
    sent = b""
    if request.method == "GET":
        sent = loader.data[chosen.start : chosen.start + chosen.length]
        await response.write(sent)
    await response.write_eof()
    return response, len(sent)


def _begin(
    request: web.Request, sha256: str, size: int, content_type: str
) -> tuple[web.StreamResponse, Selection]:
    """Status and headers of an answer, and which bytes belong to it."""
    etag = f'"{sha256}"'
    chosen = select(request.headers, size, etag)
    response = web.StreamResponse(status=chosen.status, headers={"ETag": etag, "Accept-Ranges": "bytes"})
    if chosen.status in (200, 206):
        response.content_type = content_type
        response.content_length = chosen.length
    elif chosen.status != 304:
        response.content_length = 0
    if chosen.status == 206:
        end = chosen.start + chosen.length - 1
        response.headers["Content-Range"] = f"bytes {chosen.start}-{end}/{size}"
    elif chosen.status == 416:
        response.headers["Content-Range"] = f"bytes */{size}"
    return response, chosen


async def _send(request: web.Request, file: BinaryIO, chosen: Selection) -> None:
    loop = asyncio.get_running_loop()
    at, end = chosen.start, chosen.start + chosen.length
    while at < end:
        if request.transport is None or request.transport.is_closing():
            raise ConnectionResetError("the client went away")
        try:
            async with asyncio.timeout(SLICE_SECONDS):
                at += await loop.sendfile(request.transport, file, at, min(SLICE_BYTES, end - at))
        except TimeoutError:
            request.transport.abort()
            raise ConnectionResetError(f"the client took nothing for {SLICE_SECONDS:.0f} s") from None
