"""A rack in namespaces: a director, nodes that answer HTTP with their names, and clients near and far.

One segment joins director, nodes and the near client, by a bridge in a namespace of its own; the far client
is behind the director. Needs a kernel with IPVS; see tests/guest.py.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from pathlib import Path
from typing import TypeVar

from pyroute2 import IPRoute, netns

from pxeboot.balancer.equipment import eui64
from pxeboot.lab import network
from pxeboot.mac import Mac
from tests.balancer.answers import Answers, number, request

T = TypeVar("T")

DIRECTOR, FAR_SIDE = "10.77.0.1", "10.99.0.1"
NEAR, FAR = "10.77.0.200", "10.99.0.2"
DIRECTOR6, FAR_SIDE6, NEAR6, FAR6 = "fd00:77::1", "fd00:99::1", "fd00:77::200", "fd00:99::2"
PREFIX6 = IPv6Address("fd00:77::")


def mac_of(number: int) -> Mac:
    return Mac(f"52:54:00:77:00:{number:02x}")


@dataclass
class Node:
    """A machine of the rack; its pages are its number."""

    number: int
    namespace: str
    answers: Answers
    served: int = 0
    """Requests it has answered."""
    servers: list[asyncio.Server | asyncio.BaseTransport] = field(default_factory=list)

    @property
    def mac(self) -> Mac:
        return mac_of(self.number)

    @property
    def address(self) -> str:
        return f"10.77.0.{100 + self.number}"

    @property
    def address6(self) -> str:
        return str(eui64(self.mac, PREFIX6))

    def run(self, function: Callable[[], T]) -> T:
        return network.in_namespace(self.namespace, function)

    def listen(self, port: int = 80, protocol: int = socket.IPPROTO_TCP) -> None:
        """Answer HTTP on every address, until `hush`. `/slow` takes a second. SCTP carries it too."""
        listening = self.run(lambda: _listening(port, protocol))
        self.servers.append(self.answers.http(listening, self._page))

    def answer_datagrams(self, address: str, port: int) -> None:
        """Answer each with our number, from the address that it was sent to."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        made = self.run(lambda: socket.socket(family, socket.SOCK_DGRAM))
        made.bind((address, port))
        self.servers.append(self.answers.datagrams(made, str(self.number)))

    def _page(self, path: str) -> str:
        self.served += path != "/health"
        return str(self.number)

    def hush(self) -> None:
        for server in self.servers:
            self.answers.end(server)
        self.servers.clear()

    def unplug(self) -> None:
        """Pull its cable: nothing is said to anybody."""
        self.run(lambda: _set("eth0", state="down"))

    def carry(self, address: str) -> None:
        """The virtual address on `lo`, for direct routing and tunnels, silent towards ARP before that."""

        def set_up() -> None:
            for name in ("all", "lo", "eth0"):
                sysctl(f"net/ipv4/conf/{name}/arp_ignore", "1")
                sysctl(f"net/ipv4/conf/{name}/arp_announce", "2")
            _address("lo", address, 128 if ":" in address else 32)

        self.run(set_up)

    def unpack(self) -> None:
        """Take packets out of IP in IP, of either version: the modules make these interfaces themselves."""

        def set_up() -> None:
            _set("tunl0", state="up")
            _set("ip6tnl0", state="up")
            for name in ("all", "tunl0"):
                sysctl(f"net/ipv4/conf/{name}/rp_filter", "0")

        self.run(set_up)


def _listening(port: int, protocol: int) -> socket.socket:
    """On every address of either family. Closed connections of an earlier one do not hinder it."""
    made = socket.socket(socket.AF_INET6, socket.SOCK_STREAM, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    made.bind(("::", port))
    made.listen(256)
    return made


@dataclass
class Rack:
    """The namespaces' names and the nodes."""

    director: str
    near: str
    far: str
    nodes: list[Node]

    def in_director(self, function: Callable[[], T]) -> T:
        return network.in_namespace(self.director, function)

    def in_near(self, function: Callable[[], T]) -> T:
        return network.in_namespace(self.near, function)

    def in_far(self, function: Callable[[], T]) -> T:
        return network.in_namespace(self.far, function)

    def ask(self, namespace: str, address: str, times: int, port: int = 80, path: str = "/") -> list[int]:
        """So many requests, each on a connection of its own; who answered."""
        return network.in_namespace(namespace, lambda: [get(address, port, path) for _ in range(times)])


def get(
    address: str,
    port: int = 80,
    path: str = "/",
    seconds: float = 5.0,
    protocol: int = socket.IPPROTO_TCP,
) -> int:
    """One request on a connection of its own. Raises OSError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM, protocol) as connection:
        connection.settimeout(seconds)
        connection.connect((address, port))
        connection.sendall(request(path))
        answer = b""
        while piece := connection.recv(4096):
            answer += piece
    return number(answer)


def ask_datagrams(address: str, port: int, times: int, *, ports: bool, seconds: float = 5.0) -> list[int]:
    """So many questions over UDP, with `ports` each from a port of its own; who answered. Raises OSError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with contextlib.ExitStack() as open_sockets:
        lines = [
            open_sockets.enter_context(socket.socket(family, socket.SOCK_DGRAM))
            for _ in range(times if ports else 1)
        ]
        for line in lines:
            line.settimeout(seconds)
            line.connect((address, port))  # an answer from another address is not heard
        answers = []
        for question in range(times):
            line = lines[question % len(lines)]
            line.send(b"who?")
            answers.append(int(line.recv(100)))
        return answers


@contextlib.contextmanager
def rack(nodes: int) -> Iterator[Rack]:
    """Build it; gone after the block."""
    own = f"pxeboot-r{os.getpid()}"
    switch = f"{own}-switch"
    built = Rack(f"{own}-director", f"{own}-near", f"{own}-far", [])
    answers = Answers()
    built.nodes += [Node(number, f"{own}-node{number}", answers) for number in range(1, nodes + 1)]
    names = [switch, built.director, built.near, built.far, *(node.namespace for node in built.nodes)]
    try:
        for name in names:
            netns.create(name)
        network.in_namespace(switch, _bridge)
        for number, name in enumerate([built.director, built.near]):
            network.in_namespace(switch, lambda name=name, number=number: _plug(name, mac_of(200 + number)))  # type: ignore[misc]
        for node in built.nodes:
            network.in_namespace(switch, lambda node=node: _plug(node.namespace, node.mac))  # type: ignore[misc]
        network.in_namespace(built.far, lambda: _join(built.director))
        network.in_namespace(built.director, _direct)
        network.in_namespace(built.near, lambda: _settle(NEAR, NEAR6))
        network.in_namespace(built.far, lambda: _settle(FAR, FAR6, FAR_SIDE, FAR_SIDE6))
        for node in built.nodes:
            node.run(lambda node=node: _settle(node.address, node.address6, DIRECTOR, DIRECTOR6))  # type: ignore[misc]
        yield built
    finally:
        for node in built.nodes:
            node.hush()
        answers.close()
        for name in names:
            network.delete(name)


def sysctl(name: str, value: str) -> None:
    Path("/proc/sys", name).write_text(value)


def _bridge() -> None:
    with IPRoute() as links:
        links.link(
            "add", ifname="br0", kind="bridge", br_stp_state=0, br_forward_delay=0, br_mcast_snooping=0
        )
    _set("br0", state="up")


def _plug(namespace: str, mac: Mac) -> None:
    """Runs in the switch: a cable from its bridge to `eth0` of a machine."""
    port = f"p{mac[-2:]}"
    with IPRoute() as links:
        peer = {"ifname": "eth0", "address": mac, "net_ns_fd": namespace}
        links.link("add", ifname=port, kind="veth", peer=peer)
        links.link("set", index=links.link_lookup(ifname=port)[0], state="up",
                   master=links.link_lookup(ifname="br0")[0])  # fmt: skip


def _join(director: str) -> None:
    with IPRoute() as links:
        links.link("add", ifname="eth0", kind="veth", peer={"ifname": "eth1", "net_ns_fd": director})


def _direct() -> None:
    _settle(DIRECTOR, DIRECTOR6)
    sysctl("net/ipv6/conf/eth1/accept_dad", "0")
    _set("eth1", state="up")
    _address("eth1", FAR_SIDE, 24)
    _address("eth1", FAR_SIDE6, 64)


def _settle(address: str, address6: str, router: str = "", router6: str = "") -> None:
    sysctl("net/ipv6/conf/eth0/accept_dad", "0")
    _set("lo", state="up")
    _set("eth0", state="up")
    _address("eth0", address, 24)
    _address("eth0", address6, 64)
    with IPRoute() as links:
        if router:
            links.route("add", gateway=router)
        if router6:
            links.route("add", family=socket.AF_INET6, dst="::/0", gateway=router6)


def _set(interface: str, **what: object) -> None:
    with IPRoute() as links:
        links.link("set", index=links.link_lookup(ifname=interface)[0], **what)


def _address(interface: str, address: str, prefix: int) -> None:
    with IPRoute() as links:
        links.addr("add", index=links.link_lookup(ifname=interface)[0], address=address, prefixlen=prefix)
