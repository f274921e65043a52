"""MAC addresses in every spelling."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxeboot.mac import Mac


@pytest.mark.parametrize(
    "text",
    ["52:54:00:AB:cd:ef", "52-54-00-ab-cd-ef", "5254.00ab.cdef", "525400abcdef", " 52:54:00:ab:cd:ef\n"],
)
def test_usual_spellings_are_one_address(text: str) -> None:
    assert Mac.parse(text) == "52:54:00:ab:cd:ef"


@pytest.mark.parametrize("text", ["", "52:54:00", "52:54:00:ab:cd:eg", "52:54:00:ab:cd:ef:01", "*"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a MAC address"):
        Mac.parse(text)


@given(st.binary(min_size=6, max_size=6))
def test_bytes_survive(packed: bytes) -> None:
    mac = Mac.from_bytes(packed)
    assert mac.packed == packed
    assert Mac.parse(mac.dashed) == mac
