"""Which bytes answer a request: conditions (RFC 9110 §13) and ranges (§14)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxeboot.web.ranges import MAX_RANGES, Selection, Version, multipart, select

TAG = '"abc"'
MODIFIED = 1445412480
VERSION = Version(TAG, MODIFIED)
DATE, EARLIER, LATER = (f"Wed, 21 Oct 2015 07:{minute}:00 GMT" for minute in (28, 27, 29))
WHOLE = Selection(200, (range(100),))
NONE = Selection(416)


def part(*spans: tuple[int, int]) -> Selection:
    """The bytes from and to, the latter not included."""
    return Selection(206, tuple(range(*span) for span in spans))


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-9", part((0, 10))),
        ("bytes=90-", part((90, 100))),
        ("bytes=90-1000", part((90, 100))),
        ("bytes=99-99", part((99, 100))),
        ("bytes=-10", part((90, 100))),
        ("bytes=-1000", part((0, 100))),
        ("bytes=0-", part((0, 100))),
        ("Bytes=0-9", part((0, 10))),
        ("bytes=100-", NONE),
        ("bytes=100-200", NONE),
        ("bytes=-0", NONE),
        ("bytes=100-,-0", NONE),
        ("bytes=0-9,20-29", part((0, 10), (20, 30))),
        ("bytes=20-29 , 0-9", part((20, 30), (0, 10))),
        ("bytes=0-9,100-", part((0, 10))),
        (f"bytes={'9' * 20}-", NONE),
        ("bytes= ,0-9,,", part((0, 10))),
        ("bytes=0-9,10-19", part((0, 10), (10, 20))),
        ("bytes=50-59,0-9,5-20", part((0, 21), (50, 60))),
        ("bytes=0-,0-,0-,0-", part((0, 100))),
        ("bytes=9-0", WHOLE),
        ("bytes=0-9,9-0", WHOLE),
        ("bytes=-", WHOLE),
        ("bytes=,", WHOLE),
        ("bytes=", WHOLE),
        ("lines=0-9", WHOLE),
        ("bytes=a-b", WHOLE),
        ("bytes=٣-٤", WHOLE),
        ("bytes=0-9-", WHOLE),
        ("bytes=" + "9" * 5000 + "-", WHOLE),
        ("bytes=" + ",".join(["0-0"] * MAX_RANGES), part((0, 1))),
        ("bytes=" + ",".join(["0-0"] * (MAX_RANGES + 1)), WHOLE),
        ("", WHOLE),
    ],
)
def test_ranges_are_given_where_they_are_some(header: str, expected: Selection) -> None:
    assert select("GET", {"Range": header}, 100, VERSION) == expected


def test_a_range_is_defined_for_get_only() -> None:
    assert select("HEAD", {"Range": "bytes=0-9"}, 100, VERSION) == WHOLE


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
        ({"If-Range": DATE}, 206),
        ({"If-Range": LATER}, 200),
        ({"If-Range": EARLIER}, 200),
        ({"If-Unmodified-Since": DATE}, 206),
        ({"If-Unmodified-Since": LATER}, 206),
        ({"If-Unmodified-Since": EARLIER}, 412),
        ({"If-Unmodified-Since": "Wednesday, 21-Oct-15 07:27:00 GMT"}, 412),
        ({"If-Unmodified-Since": "Wed Oct 21 07:27:00 2015"}, 412),
        ({"If-Unmodified-Since": "yesterday"}, 206),
        ({"If-Unmodified-Since": EARLIER, "If-Match": TAG}, 206),
        ({"If-Modified-Since": DATE}, 304),
        ({"If-Modified-Since": LATER}, 304),
        ({"If-Modified-Since": EARLIER}, 206),
        ({"If-Modified-Since": "0"}, 206),
        ({"If-Modified-Since": LATER, "If-None-Match": '"x"'}, 206),
        ({"If-Match": '"x"', "If-None-Match": TAG}, 412),
    ],
)
def test_conditions_come_before_the_range(headers: dict[str, str], status: int) -> None:
    assert select("GET", {"Range": "bytes=0-9", **headers}, 100, VERSION).status == status


def test_the_date_is_written_as_http_writes_it() -> None:
    assert VERSION.last_modified == DATE


@given(st.text(max_size=30), st.integers(0, 1000))
def test_any_range_stays_inside_the_file(header: str, size: int) -> None:
    for text in (header, f"bytes={header}"):
        chosen = select("GET", {"Range": text}, size, VERSION)
        assert chosen.status in (200, 206, 416)
        assert all(0 <= span.start <= span.stop <= size for span in chosen.spans)


@given(st.text(max_size=60))
def test_any_condition_is_weighed(text: str) -> None:
    for name in ("If-Match", "If-None-Match", "If-Range", "If-Modified-Since", "If-Unmodified-Since"):
        assert select("GET", {name: text, "Range": "bytes=0-0"}, 9, VERSION).status in (200, 206, 304, 412)


@given(st.lists(st.tuples(st.integers(0, 120), st.integers(0, 50)), min_size=1, max_size=8))
def test_any_ranges_hold_the_bytes_asked_for_and_each_once(asked: list[tuple[int, int]]) -> None:
    header = "bytes=" + ",".join(f"{first}-{first + more}" for first, more in asked)
    chosen = select("GET", {"Range": header}, 100, VERSION)
    wanted = {at for first, more in asked for at in range(first, first + more + 1) if at < 100}
    given_bytes = [at for span in chosen.spans for at in span]
    assert (sorted(given_bytes), chosen.status) == (sorted(wanted), 206 if wanted else 416)


def test_parts_stand_between_boundaries_with_their_place() -> None:
    body = multipart([range(0, 2), range(5, 6)], 9, "a/b", "cut")
    text = b"".join(piece if isinstance(piece, bytes) else b"x" * len(piece) for piece in body)
    assert text == (
        b"\r\n--cut\r\nContent-Type: a/b\r\nContent-Range: bytes 0-1/9\r\n\r\nxx"
        b"\r\n--cut\r\nContent-Type: a/b\r\nContent-Range: bytes 5-5/9\r\n\r\nx\r\n--cut--\r\n"
    )
