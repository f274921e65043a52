"""Many TFTP clients in one process, as fast as Python goes: the load of `bench.tftp`.

One epoll, no asyncio. Every block is compared with the file. Prints one line of JSON.
"""

import functools
import json
import select
import socket
import struct
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

RETRY_SECONDS = 1.0
"""A client repeats its last packet after so long a silence, as most do."""

_DATA, _ERROR, _OACK = 3, 5, 6
_HEADER = struct.Struct(">HH")
_ACKS = tuple(_HEADER.pack(4, block) for block in range(65536))


@dataclass
class Outcome:
    """What a run came to. Times are seconds from the first request on."""

    seconds: float
    ended: list[float]
    """When each client had its file."""
    failed: int
    windowsize: int
    """The one granted."""


class Client:
    """One read. It is a machine's loader: it knows nothing but what the server tells it."""

    def __init__(self, server: tuple[str, int], request: bytes, content: bytes) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.socket.bind(("", 0))
        self.receive, self.send = self.socket.recv, self.socket.send
        self.connected = False
        self.content = content
        self.block_size = 512
        self.expected: list[bytes] = []
        self.window = 1
        self.have = 0  # blocks, in order
        self.in_window = 0
        self.reported_gap = -1
        self.request = request
        self.server = server
        self.heard = 0.0
        self.failed = False
        self.socket.sendto(request, server)

    def repeat(self) -> None:
        """The server has been silent: say the last thing again."""
        if self.connected:
            self.acknowledge()
        else:
            self.socket.sendto(self.request, self.server)

    def acknowledge(self) -> None:
        self.in_window = 0
        self.send(_ACKS[self.have & 0xFFFF])

    def read(self) -> bool:
        """Take what has come; True when the file is whole, or never will be."""
        try:
            if not self.connected and self.meet():
                return True
            for _ in range(self.window):
                data = self.receive(self.block_size + 5)
                if data == self.expected[self.have]:
                    self.have += 1
                    self.in_window += 1
                    if self.in_window >= self.window or self.have == len(self.expected):
                        self.in_window = 0
                        self.send(_ACKS[self.have & 0xFFFF])
                        if self.have == len(self.expected):
                            return True
                elif self.other(data):
                    return True
        except BlockingIOError:
            return False
        except ConnectionRefusedError:
            self.failed = True
            return True
        return False

    def meet(self) -> bool:
        """The server's first answer, whose port is the one to talk to from now on; True for an ERROR."""
        data, peer = self.socket.recvfrom(65536)
        self.socket.connect(peer)
        self.connected = True
        opcode, _ = _HEADER.unpack_from(data)
        if opcode == _OACK:
            texts = data[2:].split(b"\0")
            options = {name.lower(): value for name, value in zip(texts[::2], texts[1::2], strict=False)}
            self.window = int(options.get(b"windowsize", b"1"))
            self.block_size = int(options.get(b"blksize", b"512"))
        self.expected = packets_of(self.content, self.block_size)
        if opcode == _DATA and data == self.expected[0]:
            self.have = 1
        self.failed = opcode == _ERROR
        if not self.failed:
            self.acknowledge()
        return self.failed

    def other(self, data: bytes) -> bool:
        """An answer that is not the block awaited; True when it is the end."""
        opcode, block = _HEADER.unpack_from(data)
        if opcode == _DATA:
            if block == (self.have + 1) & 0xFFFF:
                self.failed = True  # the right number, and other bytes
            elif block == self.have & 0xFFFF:
                self.acknowledge()  # our ACK was lost, or a copy is late: RFC 1350 §6
            elif self.window > 1 and self.reported_gap != self.have:
                self.reported_gap = self.have  # RFC 7440 §4: a gap is told at once, and once
                self.acknowledge()
        elif opcode == _OACK and self.have == 0:
            self.acknowledge()  # ours was lost
        elif opcode == _ERROR:
            self.failed = True
        return self.failed


@functools.cache
def packets_of(content: bytes, block_size: int) -> list[bytes]:
    """Every DATA packet of the file, to compare with."""
    count = len(content) // block_size + 1
    return [
        _HEADER.pack(_DATA, (block + 1) & 0xFFFF) + content[block * block_size : (block + 1) * block_size]
        for block in range(count)
    ]


def run(server: str, content: bytes, name: str, clients: int, block_size: int, window: int) -> Outcome:
    """Have `clients` read the file at once."""
    options = f"blksize\0{block_size}\0" if block_size != 512 else ""
    options += f"windowsize\0{window}\0" if window > 1 else ""
    request = f"\0\1{name}\0octet\0{options}".encode()
    for size in (512, block_size):
        packets_of(content, size)
    begun = time.monotonic()
    polled, under_way, ended, all_clients = select.epoll(), {}, [], []
    for _ in range(clients):
        client = Client((server, 69), request, content)
        under_way[client.socket.fileno()] = client
        all_clients.append(client)
        polled.register(client.socket, select.EPOLLIN)
    checked = begun
    while under_way:
        now = time.monotonic()
        for descriptor, _ in polled.poll(0, 256):  # never asleep: real clients have a core each
            client = under_way[descriptor]
            client.heard = now
            if client.read():
                polled.unregister(descriptor)
                ended.append(time.monotonic() - begun)
                del under_way[descriptor]
        if now - checked > 0.1:
            checked = now
            for client in under_way.values():
                if now - max(client.heard, begun) > RETRY_SECONDS:
                    client.heard = now
                    client.repeat()
    return Outcome(
        seconds=time.monotonic() - begun,
        ended=ended,
        failed=sum(client.failed for client in all_clients),
        windowsize=min(client.window for client in all_clients),
    )


def main() -> None:
    server, path, name, clients, block_size, window = sys.argv[1:]
    content = Path(path).read_bytes()
    print(json.dumps(asdict(run(server, content, name, int(clients), int(block_size), int(window)))))


if __name__ == "__main__":
    main()
