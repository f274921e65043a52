"""The server in a storm: thousands of machines by perfdhcp, a kill among them, a disk that is full."""

import contextlib
import os
import random
import signal
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from pxeboot.dhcp import packet
from pxeboot.dhcp.options import MessageType
from pxeboot.errors import MalformedPacket
from pxeboot.mac import Mac
from tests.lab.conditions import needs_network
from tests.serving import CLIENT, SERVER, Served, served, wait_for

pytestmark = [pytest.mark.net, needs_network]

ROUNDS = int(os.environ.get("STORM_ROUNDS", "5"))
"""Times that the server is killed: a few each time, more by hand after a change to what is promised."""
RELAY = "10.77.0.2"
"""perfdhcp speaks as a relay."""
CONFIG = """
[server]
state_dir = "STATE"

[[network]]
interface = "boot0"
subnet = "10.77.0.0/16"
pool = ["10.77.1.0-10.77.40.255"]
lease_seconds = 3600
probe_conflicts = false
"""
_IP_AND_UDP_BYTES = 28


@dataclass
class Witness:
    """Who hears every ACK on the wire, at the clients' end, whatever becomes of the server."""

    raw: socket.socket
    acknowledged: list[tuple[Mac, IPv4Address]] = field(default_factory=list)

    def listen(self) -> None:
        while True:
            try:
                frame = self.raw.recv(2048)
            except TimeoutError:
                continue
            except OSError:
                return  # closed
            self._note(frame)

    def _note(self, frame: bytes) -> None:
        if len(frame) < 240 + _IP_AND_UDP_BYTES or frame[9] != socket.IPPROTO_UDP:
            return
        with contextlib.suppress(MalformedPacket):
            heard = packet.decode(frame[_IP_AND_UDP_BYTES:])
            if heard.message_type is MessageType.ACK:
                self.acknowledged.append((heard.mac, heard.yiaddr))


@contextlib.contextmanager
def witness(server: Served) -> Iterator[Witness]:
    def open_raw() -> socket.socket:
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
        raw.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
        raw.bind((CLIENT, 0x0800))
        raw.settimeout(0.2)
        return raw

    heard = Witness(server.cable.in_client(open_raw))
    thread = threading.Thread(target=heard.listen)
    thread.start()
    try:
        yield heard
    finally:
        time.sleep(0.3)  # what is still in its buffer
        heard.raw.close()
        thread.join()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path, CONFIG) as started:
        give_relay(started)
        yield started


def give_relay(server: Served) -> None:
    def add() -> None:
        with IPRoute() as links:
            index = links.link_lookup(ifname=CLIENT)[0]
            links.addr("add", index=index, address=RELAY, prefixlen=24)

    server.cable.in_client(add)


@contextlib.contextmanager
def storm(server: Served, rate: int, clients: int) -> Iterator[None]:
    """perfdhcp in the background, for as long as the block lasts."""
    command = ["perfdhcp", "-4", "-l", RELAY, "-r", str(rate), "-R", str(clients), "-p", "60", SERVER]
    process = server.cable.in_client(
        lambda: subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    )
    try:
        yield
    finally:
        process.kill()
        process.wait()


def leases(state_dir: Path) -> dict[Mac, IPv4Address]:
    with sqlite3.connect(state_dir / "pxeboot.sqlite") as db:
        rows = db.execute("SELECT mac, address FROM lease WHERE state = 'bound'").fetchall()
    db.close()
    return {Mac(mac): IPv4Address(address) for mac, address in rows}


def check(heard: Witness, kept: dict[Mac, IPv4Address]) -> None:
    """No acknowledged lease lost, no address acknowledged to two machines. All leases outlast the test."""
    lost = [(mac, address) for mac, address in heard.acknowledged if kept.get(mac) != address]
    assert not lost, f"{len(lost)} of {len(heard.acknowledged)} acknowledged leases are lost: {lost[:5]}"
    owners: dict[IPv4Address, Mac] = {}
    for mac, address in heard.acknowledged:
        assert owners.setdefault(address, mac) == mac, f"{address} is {owners[address]}'s and {mac}'s"


@pytest.mark.timeout(60 + 10 * ROUNDS)
def test_no_acknowledged_lease_is_lost_by_kill_9_in_a_storm(server: Served) -> None:
    dice = random.Random()
    with witness(server) as heard:
        for _ in range(ROUNDS):
            before = len(heard.acknowledged)
            with storm(server, rate=2000, clients=8000):
                wait_for(lambda before=before: len(heard.acknowledged) > before + 20, 10)  # type: ignore[misc]
                time.sleep(dice.uniform(0.0, 1.0))
                server.stop(signal.SIGKILL)
            time.sleep(0.3)  # ACKs that are under way to the witness
            check(heard, leases(server.state_dir))
            server.start()
            told = server.ask("GET", "/leases")["leases"]
            served_now = {Mac(item["mac"]): IPv4Address(item["address"]) for item in told}
            check(heard, served_now)
    assert len({mac for mac, _ in heard.acknowledged}) > 20 * ROUNDS


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of eight megabytes, for what the server writes; its log stands elsewhere."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "pxeboot-test", str(disk)], check=True)
    try:
        (disk / "log").symlink_to(tmp_path / "log")
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def test_a_full_disk_stops_promises_is_told_and_is_got_over(small_disk: Path) -> None:
    with served(small_disk, CONFIG) as server:
        give_relay(server)
        with witness(server) as heard:
            with storm(server, rate=300, clients=1000):
                wait_for(lambda: len(heard.acknowledged) > 50, 10)
                filler = small_disk / "filler"
                fill(filler)
                wait_for(lambda: "cannot be written" in server.log, 10)
                time.sleep(0.5)
                while_full = len(heard.acknowledged)
                time.sleep(1.5)
                assert len(heard.acknowledged) == while_full
                check(heard, leases(small_disk))
                filler.unlink()
                wait_for(lambda: len(heard.acknowledged) > while_full + 50, 10)
            time.sleep(0.3)
            check(heard, leases(small_disk))
        complaints = [line for line in server.log.splitlines() if " ERROR " in line]
        assert len(complaints) == 1, complaints[:5]
        assert "pxeboot.sqlite cannot be written: database or disk is full" in complaints[0]
        assert "pxeboot.sqlite can be written again" in server.log
        assert "Traceback" not in server.log


def test_a_flood_is_survived_and_the_next_client_served(server: Served) -> None:
    flood = ["perfdhcp", "-4", "-i", "-l", RELAY, "-r", "30000", "-R", "5000", "-p", "2", SERVER]
    server.processes[-1].send_signal(
        signal.SIGSTOP
    )  # as on a busy machine, for it answers all that perfdhcp asks
    try:
        server.cable.run(*flood)
    finally:
        server.processes[-1].send_signal(signal.SIGCONT)
    wait_for(lambda: "more requests than can be answered" in server.log, 10)
    command = ("busybox", "udhcpc", "-i", CLIENT, "-f", "-q", "-n", "-t", "3", "-T", "1", "-s", "/bin/true")
    got = server.cable.run(*command)
    assert "lease of 10.77." in got.stderr
    dropped = server.ask("GET", "/status")["networks"][0]["requests_dropped"]
    assert dropped > 0
    assert f"boot0: {dropped} DHCP requests dropped since the start" in server.cli("status").stdout
    assert "Traceback" not in server.log
