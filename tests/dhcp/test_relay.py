"""What a relay, or a client, tells of where the client is."""

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxeboot.dhcp.options import encode_options
from pxeboot.dhcp.packet import Packet
from pxeboot.dhcp.relay import Way, way_of

RELAY, LINK, CHOSEN, OVERRIDE = (IPv4Address(f"10.{n}.0.1") for n in (1, 2, 3, 4))


def request(giaddr: IPv4Address | None = RELAY, chosen: bool = False, **told: bytes) -> Packet:
    codes = {"circuit": 1, "link": 5, "override": 11, "port": 19}
    given = {codes[name]: value for name, value in told.items()}
    carried = ({82: encode_options(given)} if given else {}) | ({118: CHOSEN.packed} if chosen else {})
    return Packet(1, 1, b"abcdef", giaddr=giaddr or IPv4Address(0), options=carried)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (request(None), Way()),
        (request(None, circuit=b"eth0"), Way()),
        (request(None, chosen=True), Way(CHOSEN)),
        (request(None, link=LINK.packed, override=OVERRIDE.packed, port=b""), Way()),
        (request(), Way(RELAY)),
        (request(chosen=True), Way(CHOSEN)),
        (request(chosen=True, link=LINK.packed), Way(LINK)),
        (request(link=LINK.packed), Way(LINK)),
        (request(link=b"abc"), Way(RELAY)),
        (request(link=b"\0\0\0\0"), Way(RELAY)),
        (request(override=OVERRIDE.packed), Way(RELAY, OVERRIDE)),
        (request(port=b""), Way(RELAY, port=1067)),
        (request(circuit=b"eth0"), Way(RELAY)),
    ],
)
def test_the_place_is_told_by_82_5_then_118_then_giaddr(asked: Packet, expected: Way) -> None:
    assert way_of(asked, 1067) == expected


@given(st.binary(max_size=40), st.binary(max_size=8))
def test_any_bytes_of_a_relay_are_read_or_left_alone(raw: bytes, chosen: bytes) -> None:
    way_of(Packet(1, 1, b"abcdef", giaddr=RELAY, options={82: raw, 118: chosen}), 67)
