import socket

import pytest

from pxeboot.errors import PxebootError
from pxeboot.tftp.sockets import bound_socket, path_mtu

HERE = "127.0.0.1"


def test_packets_may_be_fragmented_on_the_way() -> None:
    with bound_socket(HERE, 0, "lo") as sock:
        assert sock.getsockopt(socket.IPPROTO_IP, 10) == 0  # IP_MTU_DISCOVER is IP_PMTUDISC_DONT: DF clear
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16).rstrip(b"\0") == b"lo"


def test_the_path_to_a_peer_has_an_mtu() -> None:
    assert path_mtu(HERE, (HERE, 9)) == 65535


@pytest.mark.parametrize(
    ("address", "interface", "message"),
    [("192.0.2.1", None, "not an address of this machine"), (HERE, "absent0", "no interface 'absent0'")],
)
def test_what_cannot_be_bound_is_named_with_a_remedy(
    address: str, interface: str | None, message: str
) -> None:
    with pytest.raises(PxebootError, match=message) as raised:
        bound_socket(address, 0, interface)
    assert raised.value.hint
