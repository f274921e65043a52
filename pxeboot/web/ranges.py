"""Which bytes of a file answer a GET: conditions (RFC 9110 §13) and ranges (§14), pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime

MAX_RANGES = 32
"""A request for more gets the whole file: §14.2 lets us ignore a Range, §17.15 warns of many small ones."""

_SET = re.compile(r"bytes[ \t]*=(.*)", re.IGNORECASE)
_RANGE = re.compile(r"([0-9]{0,20})-([0-9]{0,20})")
_ETAG = re.compile(r'(?:W/)?"[^"]*"')


@dataclass(frozen=True, slots=True)
class Selection:
    """What answers a request: a status, and the bytes of the file that go with it."""

    status: int
    spans: tuple[range, ...] = ()


@dataclass(frozen=True, slots=True)
class Version:
    """What tells one state of a file from another."""

    etag: str
    """Strong, with its quotes."""
    modified: int
    """Unix seconds. Files under a digest never change, so that this date too is a strong validator."""

    @property
    def last_modified(self) -> str:
        """As an HTTP date (§5.6.7)."""
        return format_datetime(datetime.fromtimestamp(self.modified, UTC), usegmt=True)


def select(method: str, headers: Mapping[str, str], size: int, version: Version) -> Selection:
    """Weigh the conditions of a GET or HEAD on `size` bytes in the order of §13.2.2, then the range.

    A range is defined for GET only (§14.2). One that cannot be read is ignored: the answer is the whole.
    """
    refused = _refused(headers, version)
    if refused is not None:
        return Selection(refused)
    if method == "GET" and "Range" in headers and _same(headers.get("If-Range"), version):
        chosen = _spans(headers["Range"], size)
        if chosen is not None:
            return Selection(206, chosen) if chosen else Selection(416)
    return Selection(200, (range(size),))


def _refused(headers: Mapping[str, str], version: Version) -> int | None:
    """The status of a condition that does not hold. A date counts only beside no tag."""
    if "If-Match" in headers:
        if not _listed(version.etag, headers["If-Match"]):
            return 412
    elif (date := _date(headers.get("If-Unmodified-Since"))) is not None and version.modified > date:
        return 412
    if "If-None-Match" in headers:
        if _listed(version.etag, headers["If-None-Match"].replace("W/", "")):
            return 304
    elif (date := _date(headers.get("If-Modified-Since"))) is not None and version.modified <= date:
        return 304
    return None


def _same(if_range: str | None, version: Version) -> bool:
    """Whether an If-Range (§13.1.5) holds: the very tag, or the very date."""
    return if_range is None or if_range == version.etag or _date(if_range) == version.modified


def _listed(etag: str, condition: str) -> bool:
    return condition.strip() == "*" or etag in _ETAG.findall(condition)


def _date(text: str | None) -> int | None:
    """Unix seconds of an HTTP date in any of its three forms; None where there is none."""
    try:
        read = parsedate_to_datetime(text or "")
        return int(read.replace(tzinfo=read.tzinfo or UTC).timestamp())
    except (ValueError, OverflowError, IndexError, TypeError):
        return None


def _spans(header: str, size: int) -> tuple[range, ...] | None:
    """The satisfiable ranges, none of which overlap; None where the header is not to be followed."""
    found = _SET.fullmatch(header.strip())
    items = [item.strip(" \t") for item in found[1].split(",")] if found else []
    items = [item for item in items if item]  # a list may have empty elements: §5.6.1.2
    if not 0 < len(items) <= MAX_RANGES:
        return None
    spans = []
    for item in items:
        span = _span(item, size)
        if span is None:
            return None
        spans.append(span)
    return _apart([span for span in spans if span])


def _span(item: str, size: int) -> range | None:
    """The bytes of one `first-last` or `-length` (§14.1.2): empty if not satisfiable, None if invalid."""
    found = _RANGE.fullmatch(item)
    if found is None or found.groups() == ("", ""):
        return None
    first, last = found.groups()
    if not first:
        return range(max(0, size - int(last)), size)
    if last and int(last) < int(first):
        return None
    return range(int(first), min(int(last) + 1, size) if last else size)


def _apart(spans: Sequence[range]) -> tuple[range, ...]:
    """The same bytes, none twice: as asked for, or joined and in order where some overlap (§15.3.7.2)."""
    joined: list[range] = []
    for span in sorted(spans, key=lambda item: item.start):
        if joined and span.start < joined[-1].stop:
            joined[-1] = range(joined[-1].start, max(joined[-1].stop, span.stop))
        else:
            joined.append(span)
    return tuple(spans if len(joined) == len(spans) else joined)


def multipart(spans: Sequence[range], size: int, content_type: str, boundary: str) -> list[bytes | range]:
    """The body of a multipart/byteranges (§14.6): text as bytes, and spans of the file between."""
    body: list[bytes | range] = []
    for span in spans:
        place = content_range(span, size)
        lines = f"--{boundary}", f"Content-Type: {content_type}", f"Content-Range: {place}"
        body += ["\r\n".join(("", *lines, "", "")).encode("ascii"), span]
    return [*body, f"\r\n--{boundary}--\r\n".encode("ascii")]


def content_range(span: range, size: int) -> str:
    """The value of a Content-Range (§14.4)."""
    return f"bytes {span.start}-{span.stop - 1}/{size}"
