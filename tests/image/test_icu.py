import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxeboot.errors import PxebootError
from pxeboot.image import icu
from pxeboot.image.icu import Package

HEADER = (struct.pack("<H", 32) + icu._MAGIC).ljust(32, b"\0")
ITEMS = (
    ("icudt72l/cnvalias.icu", b"a" * 16),
    ("icudt72l/root.res", b"b" * 48),
    ("icudt72l/zu.res", b"c" * 16),
)


def test_what_is_written_is_read_back_from_within_a_library() -> None:
    package = Package(HEADER, ITEMS)
    assert icu.find(b"\x7fELF" + bytes(100) + icu.encode(package)) == package


def test_items_lie_on_multiples_of_16_and_their_names_are_found() -> None:
    data = icu.encode(Package(HEADER, (("a", b"123"), ("bc", b"4"))))
    table = data[32:]
    count, name, start, next_name, next_start = struct.unpack_from("<5I", table)
    assert (count, start % 16, next_start - start) == (2, 0, 16)
    assert (table[name : name + 2], table[next_name : next_name + 3]) == (b"a\0", b"bc\0")
    assert table[start : start + 3] == b"123"


def test_only_what_converts_the_webs_character_sets_is_kept() -> None:
    kept = Package(HEADER, ITEMS).only(icu.wanted_by_libxml2)
    assert [name for name, _ in kept.items] == ["icudt72l/cnvalias.icu"]
    names = (
        "ibm-5348_P100-1997.cnv",
        "euc-jp-2007.cnv",
        "gb18030.cnv",
        "ibm-37_P100-1995.cnv",
        "coll/de.res",
    )
    assert [icu.wanted_by_libxml2(f"icudt72l/{name}") for name in names] == [True, True, True, False, False]


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for text in (data, HEADER + data):
        try:
            icu.find(text)
        except PxebootError as error:
            assert "libicudata" in str(error)


def test_a_library_without_data_is_refused_with_what_to_do() -> None:
    with pytest.raises(PxebootError, match="no ICU data package") as caught:
        icu.find(b"\x7fELF")
    assert "icu-data" in caught.value.hint
