"""A real `pxeboot serve` in a network namespace, and a second namespace whose machines are its clients."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pyroute2 import IPRoute, netns

from pxeboot.cli.client import ask
from pxeboot.image.library import Library
from pxeboot.lab import network
from tests.parts import put_image

T = TypeVar("T")

SERVER = "10.77.0.1"
INTERFACE = "boot0"  # the server's end of the cable
CLIENT = "eth0"  # the client's end
MAC = "52:54:00:00:00:77"
CONFIG = """
[server]
state_dir = "STATE"

[[network]]
interface = "boot0"
subnet = "10.77.0.0/24"
pool = ["10.77.0.100-10.77.0.249"]
lease_seconds = 60

[[group]]
name = "web"
image = "web"
match = ["*"]
"""


@dataclass
class Cable:
    """Two namespaces joined by a veth pair, gone after the test."""

    server: str
    client: str

    def in_server(self, function: Callable[[], T]) -> T:
        return network.in_namespace(self.server, function)

    def in_client(self, function: Callable[[], T]) -> T:
        return network.in_namespace(self.client, function)

    def run(self, *command: str, seconds: float = 20) -> "subprocess.CompletedProcess[str]":
        """A program on the client's side."""
        return self.in_client(
            lambda: subprocess.run(command, timeout=seconds, capture_output=True, text=True, check=False)
        )


@contextlib.contextmanager
def cable() -> Iterator[Cable]:
    """Lay a cable: the server's address on one end, nothing on the other."""
    names = Cable(f"pxeboot-s{os.getpid()}", f"pxeboot-c{os.getpid()}")
    try:
        netns.create(names.server)
        netns.create(names.client)
        names.in_server(lambda: _lay(names.client))
        names.in_client(lambda: _up("lo", CLIENT))
        yield names
    finally:
        network.delete(names.server)
        network.delete(names.client)


def _lay(client: str) -> None:
    with IPRoute() as links:
        peer = {"ifname": CLIENT, "address": MAC, "net_ns_fd": client}
        links.link("add", ifname=INTERFACE, kind="veth", peer=peer)
        index = links.link_lookup(ifname=INTERFACE)[0]
        links.addr("add", index=index, address=SERVER, prefixlen=24)
    _up("lo", INTERFACE)


def _up(*interfaces: str) -> None:
    with IPRoute() as links:
        for interface in interfaces:
            links.link("set", index=links.link_lookup(ifname=interface)[0], state="up")


@dataclass
class Served:
    """A server process, its configuration and its log."""

    cable: Cable
    state_dir: Path
    processes: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    @property
    def config(self) -> Path:
        return self.state_dir / "pxeboot.toml"

    @property
    def log(self) -> str:
        return (self.state_dir / "log").read_text()

    def start(self) -> None:
        with (self.state_dir / "log").open("ab") as log:
            command = [sys.executable, "-m", "pxeboot.cli.main", "serve", "-c", str(self.config)]
            process = self.cable.in_server(lambda: subprocess.Popen(command, stderr=log, stdout=log))
        self.processes.append(process)
        wait_for(self._answers, 15)

    def _answers(self) -> bool:
        with contextlib.suppress(Exception):
            self.ask("GET", "/status")
            return True
        assert self.processes[-1].poll() is None, self.log
        return False

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        return ask(self.state_dir, method, path, body)

    def cli(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """The `pxeboot` command on the server's side, with this configuration."""
        command = [sys.executable, "-m", "pxeboot.cli.main", *arguments, "-c", str(self.config)]
        return self.cable.in_server(
            lambda: subprocess.run(command, timeout=30, capture_output=True, text=True, check=False)
        )

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        self.processes[-1].send_signal(how)
        return self.processes[-1].wait(timeout=5)


@contextlib.contextmanager
def served(state_dir: Path, text: str = CONFIG) -> Iterator[Served]:
    """A server that answers; ended with the block."""
    put_image(Library(state_dir / "images"))
    (state_dir / "pxeboot.toml").write_text(text.replace("STATE", str(state_dir)))
    with cable() as laid:
        server = Served(laid, state_dir)
        try:
            server.start()
            yield server
        finally:
            for process in server.processes:
                process.kill()
                process.wait()


def wait_for(condition: Callable[[], T], seconds: float, pause: float = 0.05) -> T:
    """Poll until the condition holds. Fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {condition}"
        time.sleep(pause)
    return value


def send_udp(port: int, datagrams: Sequence[bytes]) -> None:
    """Throw datagrams at the server, broadcast and unicast, from an address it did not give."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, CLIENT.encode())
        for number, data in enumerate(datagrams):
            sender.sendto(data, (SERVER if number % 2 else "255.255.255.255", port))


def send_tcp(data: bytes) -> None:
    """Throw bytes at the HTTP port and wait for the connection's end, a second at most."""
    with socket.create_connection((SERVER, 80), timeout=1) as sender, contextlib.suppress(OSError):
        sender.sendall(data)
        sender.shutdown(socket.SHUT_WR)
        while sender.recv(65536):
            pass
