"""Programs in namespaces, and what is heard of DHCP on an interface there."""

import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pxeboot.dhcp import packet
from pxeboot.dhcp.options import MessageType
from pxeboot.dhcp.packet import Packet
from pxeboot.errors import MalformedPacket
from pxeboot.lab import network


@dataclass
class Wire:
    """What is heard on an interface: kind of message, where it goes to, and the packet."""

    heard: list[tuple[MessageType, str, Packet]] = field(default_factory=list)

    def saw(self, kind: MessageType, destination: str | None = None, **fields: Any) -> bool:
        return any(
            kind is told
            and destination in (None, goes)
            and all(getattr(item, name) == value for name, value in fields.items())
            for told, goes, item in list(self.heard)
        )

    def count(self, kind: MessageType) -> int:
        return sum(told is kind for told, _, _ in list(self.heard))

    def take(self, datagram: bytes) -> None:
        """Keep an IPv4 datagram that is DHCP from a client or to one."""
        start = (datagram[0] & 15) * 4
        ports = {int.from_bytes(datagram[at : at + 2], "big") for at in (start, start + 2)}
        if datagram[9] != socket.IPPROTO_UDP or not ports & {67, 68}:
            return
        try:
            found = packet.decode(datagram[start + 8 :])
            self.heard.append((found.message_type, socket.inet_ntoa(datagram[16:20]), found))
        except MalformedPacket:
            return


@contextmanager
def listening(namespace: str, interface: str) -> Iterator[Wire]:
    """Hear all DHCP on an interface of a namespace while the block runs."""

    def open_wire() -> socket.socket:
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))  # ETH_P_ALL
        tap.bind((interface, 3))
        tap.settimeout(0.1)
        return tap

    wire, ended = Wire(), threading.Event()
    tap = network.in_namespace(namespace, open_wire)

    def listen() -> None:
        while not ended.is_set():
            try:
                data, (_, protocol, *_) = tap.recvfrom(65535)
            except TimeoutError:
                continue
            if protocol == 0x0800 and len(data) > 28:
                wire.take(data)

    thread = threading.Thread(target=listen)
    thread.start()
    try:
        yield wire
    finally:
        ended.set()
        thread.join()
        tap.close()


@contextmanager
def running(namespace: str, *command: str, log: Path, **env: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A program in a namespace, in the foreground, ended with the block."""
    with log.open("ab") as file:
        process = network.in_namespace(
            namespace,
            lambda: subprocess.Popen(
                command, stdout=file, stderr=file, stdin=subprocess.DEVNULL, env=os.environ | env
            ),
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
