"""Asks on interfaces of this box who answers DHCP there.

The questions leave through the kernel's UDP and not as raw frames: the kernel loops a UDP broadcast back, so
that a server on this very box hears it, while a raw frame only goes out (both were tried). It has the source
address 0.0.0.0 only where the interface has none, which no server minds. The answers are read as frames:
those tell the sender's hardware address, and no firewall rule of this box stands before them.
"""

import contextlib
import secrets
import selectors
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address
from uuid import uuid4

from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from pxeboot.diagnose.servers import Heard, Server, questions, servers
from pxeboot.errors import PxebootError
from pxeboot.mac import Mac

_SERVER_PORT, _CLIENT_PORT = 67, 68
_REPEAT = 1 / 3
"""Part of the time after which each question is asked again: broadcasts get lost."""
_FRAME_BYTES = 65535
_ETH_P_ALL = 3  # linux/if_ether.h; only this protocol also shows what this box itself sends
_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, _PACKET_MR_PROMISC = 263, 1, 1  # linux/if_packet.h
_IP_AT, _PROTOCOL_AT, _UDP = 14, 23, 17


def ask(interfaces: Sequence[str], seconds: float) -> list[Server]:
    """Ask on all these interfaces at once and listen for so long. Raises PxebootError."""
    client = _made_up_mac()
    asked = questions(client, uuid4(), secrets.randbits(31))
    try:
        heard = _converse(interfaces, [payload for _, payload in asked.values()], seconds)
    except PermissionError as error:
        raise PxebootError("asking who answers DHCP takes raw sockets", "run it as root") from error
    except OSError as error:
        raise PxebootError(
            f"cannot ask on {', '.join(interfaces)}: {error.strerror}", "name an interface with -i"
        ) from error
    return servers(heard, {xid: name for xid, (name, _) in asked.items()}, client)


def _made_up_mac() -> Mac:
    """A random address of our own making: bit 2 of the first octet set, bit 1 not (IEEE 802, clause 8)."""
    return Mac.from_bytes(bytes((secrets.randbelow(64) << 2 | 2,)) + secrets.token_bytes(5))


def _converse(interfaces: Sequence[str], payloads: Sequence[bytes], seconds: float) -> list[Heard]:
    with contextlib.ExitStack() as opened, selectors.DefaultSelector() as ready:
        for name in interfaces:
            ready.register(opened.enter_context(_listener(name)), selectors.EVENT_READ, name)
        senders = [opened.enter_context(_sender(name)) for name in interfaces]
        started, heard = time.monotonic(), list[Heard]()
        for until in (seconds * _REPEAT, seconds):
            for sender in senders:
                for payload in payloads:
                    sender.sendto(payload, ("255.255.255.255", _SERVER_PORT))
            heard += _listen(ready, started + until)
        return heard


def _listen(ready: selectors.BaseSelector, deadline: float) -> Iterator[Heard]:
    while (left := deadline - time.monotonic()) > 0:
        for key, _ in ready.select(left):
            assert isinstance(key.fileobj, socket.socket)
            frame = key.fileobj.recv(_FRAME_BYTES)
            if _comes_from_a_server(frame):
                dissected = Ether(frame)
                if UDP in dissected:
                    yield _heard(str(key.data), dissected)


def _comes_from_a_server(frame: bytes) -> bool:
    """Whether this looks like UDP from port 67: every frame of a busy interface is asked, so not by scapy."""
    if len(frame) < _IP_AT + 28 or frame[12:14] != b"\x08\x00" or frame[_PROTOCOL_AT] != _UDP:
        return False
    udp_at = _IP_AT + 4 * (frame[_IP_AT] & 0x0F)
    return frame[udp_at : udp_at + 2] == _SERVER_PORT.to_bytes(2, "big")


def _heard(interface: str, frame: Ether) -> Heard:
    payload = frame[UDP].payload.original
    return Heard(interface, Mac.parse(frame.src), IPv4Address(frame[IP].src), payload)


def _listener(interface: str) -> socket.socket:
    """Everything on an interface, also what is addressed to the client that we made up."""
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    try:
        opened.bind((interface, _ETH_P_ALL))
        membership = struct.pack("=iHH8s", socket.if_nametoindex(interface), _PACKET_MR_PROMISC, 0, b"")
        opened.setsockopt(_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, membership)
    except OSError:
        opened.close()
        raise
    return opened


def _sender(interface: str) -> socket.socket:
    """From a client's port, where no client of this box keeps that to itself."""
    opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        with contextlib.suppress(OSError):  # servers answer to port 68 whatever the question came from
            opened.bind(("0.0.0.0", _CLIENT_PORT))  # noqa: S104  one device only
    except OSError:
        opened.close()
        raise
    return opened
