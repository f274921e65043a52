"""ICU's data package, read and written: a table of contents, and the items in the order of their names.

Source: ICU 72, `common/unicode/udata.h` (UDataInfo), `common/ucmndata.h` (UDataOffsetTOC), and
`tools/toolutil/package.cpp`.
All offsets are from the table of contents; this reads the little-endian ASCII form, that of PCs.
"""

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pxeboot.errors import PxebootError

_MAGIC = b"\xda\x27\x14\x00\x00\x00\x00\x00\x02\x00CmnD"
"""From byte 2 of the header: magic, size of UDataInfo (20), reserved, little-endian, ASCII, UChar of 2 bytes,
format."""
_COUNT = struct.Struct("<I")
_ENTRY = struct.Struct("<II")
_ALIGNMENT = 16

_WEB = re.compile(
    r"cnvalias\.icu|uts46\.nrm|nfkc(_cf)?\.nrm|(euc-jp-2007|gb18030|iso-8859_.*|macos-(0_2|7_3)-.*"
    r"|ibm-(534[6-9]|535[0-4]|813|86[67]|878|9005|91[2-6]|92[0-3]|1089|1168|5012|9448|970|137[35]|138[36])_.*"
    r"|ibm-(943_P15A|1363_P11B).*|jisx-212"
    r"|windows-(874|936|949|950)-2000)\.cnv"
)
"""The character sets of the WHATWG Encoding Standard by ICU's names (`convrtrs.txt`), with the tables that
some of them extend, and the table of their aliases."""


def wanted_by_libxml2(name: str) -> bool:
    """Whether an item is for converting what is met on the web."""
    return _WEB.fullmatch(name.partition("/")[2]) is not None


@dataclass(frozen=True)
class Package:
    """A data package."""

    header: bytes
    """UDataInfo and a copyright line, as they are."""
    items: tuple[tuple[str, bytes], ...]
    """Name and contents, sorted by name."""

    def only(self, wanted: Callable[[str], bool]) -> "Package":
        """The package with the wanted items alone."""
        return Package(self.header, tuple(item for item in self.items if wanted(item[0])))


def find(data: bytes) -> Package:
    """Read the package that a library holds. Raises PxebootError when there is none, or it is damaged."""
    try:
        start = data.index(_MAGIC, 2) - 2
        (header_size,) = struct.unpack_from("<H", data, start)
        table = start + header_size
        return Package(data[start:table], tuple(_items(memoryview(data)[table:])))
    except (ValueError, struct.error):
        raise PxebootError(
            "libicudata holds no ICU data package that can be read", "leave out the strip rule icu-data"
        ) from None


def _items(table: memoryview) -> Iterator[tuple[str, bytes]]:
    (count,) = _COUNT.unpack_from(table)
    entries = [_ENTRY.unpack_from(table, _COUNT.size + _ENTRY.size * index) for index in range(count)]
    text = bytes(table[: entries[0][1]]) if entries else b""
    ends = [start for _, start in entries[1:]] + [len(table)]  # nothing tells where the last one ends
    for (name, start), end in zip(entries, ends, strict=True):
        yield text[name : text.index(b"\0", name)].decode("ascii"), bytes(table[start:end])


def encode(package: Package) -> bytes:
    """Write a package, each item on a multiple of 16."""
    count = len(package.items)
    names_at = _COUNT.size + _ENTRY.size * count
    names = b"".join(name.encode("ascii") + b"\0" for name, _ in package.items)
    position = _aligned(names_at + len(names))
    table, body, name_at = [_COUNT.pack(count)], [], names_at
    for name, data in package.items:
        table.append(_ENTRY.pack(name_at, position))
        name_at += len(name) + 1
        padded = data.ljust(_aligned(len(data)), b"\0")
        body.append(padded)
        position += len(padded)
    head = (b"".join(table) + names).ljust(_aligned(names_at + len(names)), b"\0")
    return package.header + head + b"".join(body)


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
