import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxeboot.errors import PxebootError
from pxeboot.tftp.packet import ReadRequest, WriteRequest
from pxeboot.tftp.transfer import (
    MAX_NETASCII,
    TftpLimits,
    check_netascii,
    negotiate,
    plain_name,
    refusal,
    to_netascii,
)

LIMITS = TftpLimits(max_block_size=1468, max_window_size=64)
OPTION_NAMES = st.sampled_from(["blksize", "tsize", "timeout", "windowsize"]) | st.text(max_size=9)


@pytest.mark.parametrize(
    ("asked", "granted"),
    [
        ({}, {}),
        ({"blksize": "1428"}, {"blksize": 1428}),
        ({"blksize": "65464"}, {"blksize": 1468}),
        ({"blksize": "1"}, {"blksize": 8}),
        ({"blksize": "big"}, {}),
        ({"blksize": "-8"}, {}),
        ({"blksize": "١٢"}, {}),
        ({"blksize": "9" * 900}, {}),
        ({"tsize": "0"}, {"tsize": 5000}),
        ({"timeout": "1"}, {"timeout": 1}),
        ({"timeout": "255"}, {"timeout": 255}),
        ({"timeout": "0"}, {}),
        ({"timeout": "256"}, {}),
        ({"windowsize": "4"}, {"windowsize": 4}),
        ({"windowsize": "0"}, {"windowsize": 1}),
        ({"windowsize": "65535"}, {"windowsize": 64}),
        ({"multicast": "", "rollover": "1", "tsize": "0"}, {"tsize": 5000}),
    ],
)
def test_options_are_granted_within_the_limits(asked: dict[str, str], granted: dict[str, int]) -> None:
    assert negotiate(asked, LIMITS, size=5000).options == granted


def test_the_size_of_an_empty_file_is_told_but_to_curl() -> None:
    assert negotiate({"tsize": "0"}, LIMITS, size=0).options == {"tsize": 0}
    curl = {"tsize": "0", "blksize": "512", "timeout": "6"}
    assert negotiate(curl, LIMITS, size=0).options == {"blksize": 512, "timeout": 6}


@given(st.dictionaries(OPTION_NAMES, st.integers().map(str) | st.text(max_size=5)))
def test_no_option_is_granted_unasked_or_out_of_bounds(asked: dict[str, str]) -> None:
    granted = negotiate(asked, LIMITS, size=7)
    assert set(granted.options) <= set(asked) & {"blksize", "tsize", "timeout", "windowsize"}
    assert 8 <= granted.block_size <= 1468
    assert 1 <= granted.window_size <= 64
    assert granted.timeout_s is None or str(granted.timeout_s) == asked["timeout"].lstrip("0")


def test_writing_and_odd_modes_are_refused_and_reading_is_not() -> None:
    requests: list[ReadRequest | WriteRequest] = [WriteRequest("a", "octet"), ReadRequest("a", "mail")]
    requests += [ReadRequest("a", "octet"), ReadRequest("a", "netascii")]
    errors = [refusal(request) for request in requests]
    assert [error and error.code for error in errors] == [2, 4, None, None]


@pytest.mark.parametrize("name", ["boot/x.efi", "/boot/x.efi", "\\boot\\x.efi", "//boot\\x.efi"])
def test_names_lose_what_firmware_adds(name: str) -> None:
    assert plain_name(name) == "boot/x.efi"


def test_netascii_has_its_line_ends_and_is_for_texts() -> None:
    assert to_netascii(b"a\nb\rc\r\n") == b"a\r\nb\r\0c\r\0\r\n"
    check_netascii(MAX_NETASCII)
    with pytest.raises(PxebootError, match="netascii"):
        check_netascii(MAX_NETASCII + 1)
