"""Artefacts and loaders over HTTP: what `ranges` has chosen, sent."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from aiohttp import web

from pxeboot.web.ranges import Version, content_range, multipart, select
from pxeboot.web.sendfile import send_file, write_file

_WEIGHED = ("If-Match", "If-Unmodified-Since", "If-None-Match", "If-Modified-Since", "If-Range", "Range")


@dataclass(frozen=True, slots=True)
class LoaderFile:
    """A boot loader in memory: of some hundred kilobytes, and asked for by a whole rack at once."""

    name: str
    data: bytes
    sha256: str
    modified: int = 0
    """Unix seconds."""

    @classmethod
    def of(cls, name: str, data: bytes, modified: float = 0) -> Self:
        """Count its digest."""
        return cls(name, data, hashlib.sha256(data).hexdigest(), int(modified))


async def send_artefact(
    request: web.Request, path: Path, sha256: str, size: int
) -> tuple[web.StreamResponse, int]:
    """Answer GET or HEAD with a file of the library whose digest and size are known.

    Returns the response and how many bytes of the file were sent. Raises ConnectionError where the client
    goes away or takes nothing for so long that it is cut off.
    """
    # Opening in a thread would leak the file where the client goes away meanwhile, and takes longer.
    with path.open("rb") as file:
        modified = int(os.fstat(file.fileno()).st_mtime)
        answer = _Answer.to(request, sha256, size, modified, "application/octet-stream")
        response = await answer.begin(request)
        for piece in answer.body:
            if isinstance(piece, bytes):
                await response.write(piece)
            else:
                await _send_span(request, response, file, piece)
        await response.write_eof()
    return response, answer.file_bytes


async def send_loader(request: web.Request, loader: LoaderFile) -> tuple[web.StreamResponse, int]:
    """Answer GET or HEAD with a boot loader. Returns the response and how many bytes of it were sent.

    The type is what UEFI HTTP Boot knows an executable by (UEFI 2.10 §24.7.3.2).
    """
    answer = _Answer.to(request, loader.sha256, len(loader.data), loader.modified, "application/efi")
    response = await answer.begin(request)
    for piece in answer.body:
        await response.write(piece if isinstance(piece, bytes) else loader.data[piece.start : piece.stop])
    await response.write_eof()
    return response, answer.file_bytes


@dataclass(frozen=True, slots=True)
class _Answer:
    """Status, headers and body of an answer; spans of the body are of the file."""

    status: int
    headers: Mapping[str, str]
    length: int
    body: list[bytes | range]

    @classmethod
    def to(cls, request: web.Request, sha256: str, size: int, modified: int, content_type: str) -> Self:
        """Decide it for a file of `size` bytes, last changed at `modified`, Unix seconds."""
        version = Version(f'"{sha256}"', modified)
        chosen = select(request.method, _weighed(request), size, version)
        headers = {"ETag": version.etag, "Last-Modified": version.last_modified, "Accept-Ranges": "bytes"}
        body: list[bytes | range] = list(chosen.spans)
        if len(chosen.spans) > 1:
            boundary = f"pxeboot-{sha256[:40]}"  # no file has a part of its own digest in it
            body = multipart(chosen.spans, size, content_type, boundary)
            content_type = f"multipart/byteranges; boundary={boundary}"
        elif chosen.status == 206:
            headers["Content-Range"] = content_range(chosen.spans[0], size)
        elif chosen.status == 416:
            headers["Content-Range"] = f"bytes */{size}"
        if chosen.spans:
            headers["Content-Type"] = content_type
        length = sum(len(piece) for piece in body)
        return cls(chosen.status, headers, length, body if request.method == "GET" else [])

    @property
    def file_bytes(self) -> int:
        """How many bytes of the file are in the body."""
        return sum(len(piece) for piece in self.body if isinstance(piece, range))

    async def begin(self, request: web.Request) -> web.StreamResponse:
        """Send the head."""
        response = web.StreamResponse(status=self.status, headers=self.headers)
        if self.status != 304:
            response.content_length = self.length
        await response.prepare(request)
        return response


def _weighed(request: web.Request) -> dict[str, str]:
    """The headers that choose the answer; several lines of one are a list (RFC 9110 §5.3)."""
    return {name: ", ".join(lines) for name in _WEIGHED if (lines := request.headers.getall(name, []))}


async def _send_span(request: web.Request, response: web.StreamResponse, file: BinaryIO, span: range) -> None:
    if request.transport is None:
        raise ConnectionResetError("the client went away")
    if request.secure:  # nothing but Python can encrypt it
        await write_file(request.transport, response.write, file, span)
    else:
        await send_file(request.transport, file, span)
