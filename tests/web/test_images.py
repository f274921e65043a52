"""Which bytes answer a request: conditions and ranges (RFC 9110 §13, §14)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxeboot.web.images import Selection, select

TAG = '"abc"'
WHOLE = Selection(200, 0, 100)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-9", Selection(206, 0, 10)),
        ("bytes=90-", Selection(206, 90, 10)),
        ("bytes=90-1000", Selection(206, 90, 10)),
        ("bytes=99-99", Selection(206, 99, 1)),
        ("bytes=-10", Selection(206, 90, 10)),
        ("bytes=-1000", Selection(206, 0, 100)),
        ("bytes=100-", Selection(416, 0, 0)),
        ("bytes=100-200", Selection(416, 0, 0)),
        ("bytes=-0", Selection(416, 0, 0)),
        ("bytes=9-0", WHOLE),
        ("bytes=-", WHOLE),
        ("bytes=0-9,20-29", WHOLE),
        ("lines=0-9", WHOLE),
        ("bytes=a-b", WHOLE),
        ("", WHOLE),
    ],
)
def test_a_range_is_given_where_it_is_one(header: str, expected: Selection) -> None:
    assert select({"Range": header}, 100, TAG) == expected


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"If-Match": TAG}, 206),
        ({"If-Match": "*"}, 206),
        ({"If-Match": '"x", "abc"'}, 206),
        ({"If-Match": '"x"'}, 412),
        ({"If-Match": 'W/"abc"'}, 412),
        ({"If-None-Match": TAG}, 304),
        ({"If-None-Match": 'W/"abc"'}, 304),
        ({"If-None-Match": "*"}, 304),
        ({"If-None-Match": '"x"'}, 206),
        ({"If-Range": TAG}, 206),
        ({"If-Range": '"x"'}, 200),
        ({"If-Range": 'W/"abc"'}, 200),
        ({"If-Range": "Wed, 21 Oct 2015 07:28:00 GMT"}, 200),
        ({"If-Match": '"x"', "If-None-Match": TAG}, 412),
    ],
)
def test_conditions_come_before_the_range(headers: dict[str, str], status: int) -> None:
    assert select({"Range": "bytes=0-9", **headers}, 100, TAG).status == status


@given(st.text(max_size=30), st.integers(0, 1000))
def test_any_range_stays_inside_the_file(header: str, size: int) -> None:
    for text in (header, f"bytes={header}"):
        chosen = select({"Range": text}, size, TAG)
        assert chosen.status in (200, 206, 416)
        assert 0 <= chosen.start <= chosen.start + chosen.length <= size


@given(st.integers(0, 120), st.integers(0, 120))
def test_any_valid_range_is_what_slicing_gives(first: int, last: int) -> None:
    chosen = select({"Range": f"bytes={first}-{last}"}, 100, TAG)
    if first > last:
        assert chosen == WHOLE
    elif first >= 100:
        assert chosen.status == 416
    else:
        assert range(100)[first : last + 1] == range(chosen.start, chosen.start + chosen.length)
