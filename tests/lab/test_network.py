import fcntl
import os
import select
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from ipaddress import IPv4Interface
from pathlib import Path

import pytest
from scapy.layers.l2 import ARP, Ether

from pxeboot.errors import PxebootError
from pxeboot.lab import network

from .conditions import needs_network

pytestmark = [pytest.mark.net, needs_network]

_TUNSETIFF = 0x400454CA  # linux/if_tun.h
_IFF_TAP_WITHOUT_HEADER = 0x0002 | 0x1000


@pytest.fixture
def namespace() -> Iterator[str]:
    name = f"pxeboot-test-{os.getpid()}"
    yield name
    network.delete(name)


def own_namespace() -> os.stat_result:
    return Path("/proc/thread-self/ns/net").stat()


def test_bridge_and_taps_are_there_and_nothing_else(namespace: str) -> None:
    network.create(namespace, ["tap1", "tap2"])
    assert set(network.interfaces(namespace)) == {"lo", network.BRIDGE, "tap1", "tap2"}


def test_the_bridge_address_answers_inside(namespace: str) -> None:
    network.create(namespace, [])
    address = str(network.ADDRESS.ip)

    def talk() -> bytes:
        with socket.create_server((address, 0)) as server:
            with socket.create_connection(server.getsockname(), timeout=2) as client:
                client.sendall(b"hello")
            with server.accept()[0] as accepted:
                return accepted.recv(5)

    assert network.in_namespace(namespace, talk) == b"hello"


def plug_in(namespace: str, tap: str) -> int:
    """Be the machine on that tap: a descriptor that reads and writes its frames."""

    def plug() -> int:
        descriptor = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH", tap.encode(), _IFF_TAP_WITHOUT_HEADER))
        return descriptor

    return network.in_namespace(namespace, plug)


def test_machines_on_taps_reach_each_other_and_the_bridge(namespace: str) -> None:
    network.create(namespace, ["tap1", "tap2"])
    bridge = str(network.ADDRESS.ip)
    question = Ether(src="52:54:00:00:00:01", dst="ff:ff:ff:ff:ff:ff") / ARP(
        op="who-has", hwsrc="52:54:00:00:00:01", psrc="10.77.0.9", pdst=bridge
    )
    one, other = plug_in(namespace, "tap1"), plug_in(namespace, "tap2")
    heard: set[tuple[int, int]] = set()
    try:
        # The kernel takes up to a second to see that a tap is plugged in; frames before that are lost.
        for _ in range(50):
            os.write(one, bytes(question))
            for tap in select.select([one, other], [], [], 0.1)[0]:
                frame = Ether(os.read(tap, 2048))
                if ARP in frame:
                    heard.add((tap, frame[ARP].op))
            if heard >= {(other, 1), (one, 2)}:
                break
        assert heard >= {(other, 1), (one, 2)}
    finally:
        os.close(one)
        os.close(other)


def test_the_caller_stays_where_it_was_and_the_thread_ends(namespace: str) -> None:
    network.create(namespace, [])
    before = own_namespace()
    inside = network.in_namespace(namespace, own_namespace)
    assert not os.path.samestat(before, inside)
    assert os.path.samestat(before, own_namespace())
    assert threading.active_count() == 1


def test_what_the_function_raises_reaches_the_caller(namespace: str) -> None:
    network.create(namespace, [])
    with pytest.raises(ZeroDivisionError):
        network.in_namespace(namespace, lambda: 1 // 0)


def test_a_program_started_inside_lives_inside(namespace: str) -> None:
    network.create(namespace, [])
    child = network.in_namespace(namespace, lambda: subprocess.Popen(["sleep", "60"]))
    try:
        assert network.processes(namespace) == [child.pid]
    finally:
        child.kill()
        child.wait()
    assert network.processes(namespace) == []


def test_creating_again_clears_what_was_there(namespace: str) -> None:
    network.create(namespace, ["tap1", "tap2"])
    network.create(namespace, ["tap3"])
    assert set(network.interfaces(namespace)) == {"lo", network.BRIDGE, "tap3"}


def test_deleting_removes_it_and_may_be_repeated(namespace: str) -> None:
    network.create(namespace, [])
    network.delete(namespace)
    assert not network.exists(namespace)
    network.delete(namespace)


def test_a_namespace_that_cannot_be_finished_is_not_left(namespace: str) -> None:
    with pytest.raises(PxebootError, match="refused"):
        network.create(namespace, ["a-name-too-long-for-linux"])
    assert not network.exists(namespace)


def test_a_namespace_left_as_a_plain_file_is_cleared(namespace: str) -> None:
    # /run may outlive a restart of the system, and the mount on the name does not.
    Path("/run/netns").mkdir(exist_ok=True)
    (Path("/run/netns") / namespace).touch()
    network.create(namespace, [])
    assert network.BRIDGE in network.interfaces(namespace)


@pytest.mark.parametrize("client", [network.NEAR_CLIENT, network.FAR_CLIENT], ids=["near", "far"])
def test_a_client_beside_it_reaches_the_director_and_goes_with_it(
    namespace: str, client: IPv4Interface
) -> None:
    network.create(namespace, [], addresses=(network.ADDRESS, network.OUTSIDE), client=client)
    beside = network.client_of(namespace)

    def open_server() -> socket.socket:
        return socket.create_server((str(network.ADDRESS.ip), 0))

    with network.in_namespace(namespace, open_server) as server:
        address = server.getsockname()
        with network.in_namespace(beside, lambda: socket.create_connection(address, timeout=5)) as line:
            assert line.getsockname()[0] == str(client.ip)
    network.delete(namespace)
    assert not network.exists(beside)
