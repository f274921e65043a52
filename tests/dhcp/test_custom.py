"""Options by the operator: how each kind is written, and what is refused with which words."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxeboot.dhcp.custom import MAX_BYTES, code_of, encode_all, remedy
from pxeboot.dhcp.options import OPTIONS


@pytest.mark.parametrize(
    ("name", "value", "code", "raw"),
    [
        ("time-offset", -3600, 2, "fffff1f0"),
        ("routers", "10.0.0.1", 3, "0a000001"),
        ("ntp-servers", ["10.0.0.1", "10.0.0.2"], 42, "0a0000010a000002"),
        ("ntp-servers", "10.0.0.1,10.0.0.2", 42, "0a0000010a000002"),
        ("42", ["10.0.0.1"], 42, "0a000001"),
        ("domain-name", "boot.example", 15, b"boot.example".hex()),
        ("interface-mtu", 9000, 26, "2328"),
        ("interface-mtu", "9000", 26, "2328"),
        ("path-mtu-plateau-table", [68, 1500], 25, "004405dc"),
        ("default-ip-ttl", 64, 23, "40"),
        ("pxelinux-reboottime", 30, 211, "0000001e"),
        ("ip-forwarding", True, 19, "01"),
        ("ip-forwarding", "false", 19, "00"),
        ("static-routes", ["10.1.0.1", "10.0.0.1"], 33, "0a0100010a000001"),
        ("domain-search", ["a.example", "b"], 119, "0161076578616d706c6500016200"),
        ("classless-static-routes", ["10.0.0.0/8 via 10.77.0.2"], 121, "080a0a4d0002"),
        ("vendor-specific", {"6": "hex:08", "128": "ab"}, 43, "06010880026162"),
        ("vendor-specific", "hex:ff", 43, "ff"),
        ("ntp-servers", "hex:01", 42, "01"),
        ("224", "hex:01:02", 224, "0102"),
        ("224", "text", 224, b"text".hex()),
    ],
)
def test_a_value_is_written_as_its_kind(name: str, value: object, code: int, raw: str) -> None:
    assert encode_all({name: value}) == {code: bytes.fromhex(raw)}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("ntp-server", "10.0.0.1", "ntp-server: no option has this name; 'ntp-servers' has"),
        ("zzz", "", "zzz: no option has this name"),
        ("255", "hex:00", "255: option numbers are 1 to 254"),
        ("0", "hex:00", "0: option numbers are 1 to 254"),
        ("51", 60, "51: option 51 follows from the network's lease_seconds"),
        ("1", "255.0.0.0", "1: option 1 follows from the network's subnet"),
        ("60", "PXEClient", "60: option 60 only answers what the client said"),
        ("82", "hex:00", "82: option 82 is part of the protocol's own working"),
        ("ntp-servers", ["ntp.example"], "ntp-servers: 'ntp.example' is not an IPv4 address"),
        ("ntp-servers", [], "ntp-servers: [] is not a list of strings"),
        ("ntp-servers", 5, "ntp-servers: 5 is not a list of strings"),
        ("swap-server", ["10.0.0.1"], "swap-server: ['10.0.0.1'] is not an IPv4 address"),
        ("static-routes", ["10.0.0.1"], "is not addresses in pairs"),
        ("interface-mtu", 65536, "interface-mtu: 65536 is not a number from 0 to 65535"),
        ("interface-mtu", True, "interface-mtu: True is not a number"),
        ("ip-forwarding", "maybe", "ip-forwarding: 'maybe' is neither true nor false"),
        ("ip-forwarding", 1, "ip-forwarding: 1 is neither true nor false"),
        ("domain-name", "a\nb", "domain-name: 'a\\nb' is not a line of text"),
        ("domain-search", ["a..b"], "'a..b' is not a domain name"),
        ("domain-search", ["ü.example"], "outside ASCII"),
        ("domain-search", [".".join(["a" * 60] * 5)], "is longer than 253 characters"),
        ("classless-static-routes", ["10.0.0.1/8 via 10.0.0.1"], "has host bits set"),
        ("classless-static-routes", ["10.0.0.0/8"], "'' is not an IPv4 address"),
        ("vendor-specific", {"255": "hex:00"}, "'255' is not the number of a sub-option"),
        ("vendor-specific", {"6": "x" * 256}, "a sub-option has 255 bytes at most, not 256"),
        ("vendor-specific", {}, "{} is not a table of sub-options"),
        ("224", "hex:012", "'hex:012' is not hex:"),
        ("224", 7, "224: 7 is not a line of text"),
        ("224", "x" * (MAX_BYTES + 1), "1021 bytes are more than 1020"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_name_and_value(name: str, value: object, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        encode_all({name: value})


def test_an_option_is_set_once() -> None:
    with pytest.raises(ValueError, match="42: option 42 is set twice"):
        encode_all({"ntp-servers": "10.0.0.1", "42": "10.0.0.2"})


def test_the_remedy_shows_how_to_write_it() -> None:
    assert remedy("ntp-servers") == 'write IPv4 addresses, like ["10.0.0.1", "10.0.0.2"]'
    assert remedy("224") == 'write bytes as "hex:0102", or a line of text'
    assert "by name or number" in remedy("zzz")


@given(st.sampled_from([15, 42, 119, 121]), st.binary(min_size=1, max_size=40))
def test_hex_is_the_bytes_themselves(code: int, raw: bytes) -> None:
    assert encode_all({OPTIONS[code].name: f"hex:{raw.hex()}"}) == {code: raw}
    assert code_of(OPTIONS[code].name) == code


@given(
    st.text(max_size=8),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=4,
    ),
    st.sampled_from([2, 3, 15, 19, 21, 23, 25, 26, 43, 119, 121, 211, 224]),
)
def test_any_value_is_written_or_refused_with_one_error(name: str, value: object, code: int) -> None:
    for key in (name, str(code)):
        try:
            encode_all({key: value})
        except ValueError as error:
            assert str(error).startswith(f"{key}: ")
