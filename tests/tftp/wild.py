"""A client, a server of the real state machine, and a network between them that does what networks do.

Everything happens by one clock and one source of chance, so that one seed is one story.
"""

import heapq
import math
import random
from collections import Counter
from dataclasses import dataclass
from itertools import count

from pxeboot.tftp.packet import Ack, Data, Error, OptionAck, Packet, ReadRequest, decode, encode
from pxeboot.tftp.transfer import NO_OPTIONS, Granted, Transfer

KINDS = (ReadRequest, OptionAck, Data, Ack, Error)
REQUEST = ReadRequest("file", "octet")
TRAVEL_S = 0.0001


def ack(block: int) -> bytes:
    """An ACK as it comes from the wire."""
    return encode(Ack(block & 0xFFFF))


def packet(block: int, content: bytes, granted: Granted) -> bytes:
    """What a block number of `Transfer` stands for."""
    if block == 0:
        return encode(OptionAck({name: str(value) for name, value in granted.options.items()}))
    size = granted.block_size
    return encode(Data(block & 0xFFFF, content[(block - 1) * size : block * size]))


@dataclass(frozen=True)
class Fault:
    """What happens to packets of one kind, by chance."""

    loss: float = 0.0
    """The same packet is not lost more than three times: else nothing could be said of the end."""
    repeat: float = 0.0
    delay_s: float = TRAVEL_S
    """The longest; packets with different delays overtake each other."""


class Client:
    """Reads as the RFCs say, and as naively as they allow: it acknowledges every DATA it has had before.

    That is the client that makes a Sorcerer's Apprentice of a server which answers repeated ACKs.
    """

    WAIT_S = 3.0

    def __init__(self, granted: Granted = NO_OPTIONS, gives_up_at: int | None = None) -> None:
        """`gives_up_at`: the block at which it breaks off with an ERROR."""
        self.granted = granted
        self.gives_up_at = gives_up_at
        self.received = b""
        self.complete = False
        self.next = 0 if granted.options else 1  # block awaited, not wrapped
        self.in_window = 0
        self.spoke = False

    def start(self) -> list[bytes]:
        return [encode(REQUEST)]

    def wait_ended(self) -> list[bytes]:
        """It repeats its last packet."""
        return self.acknowledge() if self.spoke else self.start()

    def receive(self, data: bytes) -> list[bytes]:
        read = decode(data)
        if isinstance(read, OptionAck):
            assert {k: int(v) for k, v in read.options.items()} == self.granted.options
            self.next = max(self.next, 1)
            return self.acknowledge()
        assert isinstance(read, Data)
        if self.next == 0:
            return []  # DATA before the OACK is nothing we asked for
        if self.next == self.gives_up_at:
            self.complete = True
            return [encode(Error(3, "no room"))]
        if read.block != self.next & 0xFFFF or self.complete:
            return self.acknowledge()
        self.received += read.payload
        self.next += 1
        self.in_window += 1
        self.complete = len(read.payload) < self.granted.block_size
        if self.complete or self.in_window == self.granted.window_size:
            return self.acknowledge()
        return []

    def acknowledge(self) -> list[bytes]:
        self.spoke, self.in_window = True, 0
        return [ack(self.next - 1)]


class Wild:
    """The network, the clock and the server's end."""

    def __init__(self, seed: int, content: bytes, client: Client, faults: dict[type, Fault]) -> None:
        self.chance = random.Random(seed)
        self.content = content
        self.client = client
        self.faults = faults
        self.order = count()
        self.flying: list[tuple[float, int, bool, bytes]] = []  # True: towards the client
        self.lost: Counter[bytes] = Counter()
        self.sent: Counter[type] = Counter()
        self.transfers: list[Transfer] = []
        self.resent = 0  # blocks, because of their deadline
        self.client_takes_s = 0.0  # for each packet, one after the other
        self.client_busy_until = 0.0

    @property
    def transfer(self) -> Transfer:
        """The first, which a client that is never restarted stays with."""
        return self.transfers[0]

    def send(self, now: float, to_client: bool, packets: list[bytes]) -> None:
        for data in packets:
            kind = type(decode(data))
            self.sent[kind] += 1
            fault = self.faults.get(kind, Fault())
            for _ in range(1 + (self.chance.random() < fault.repeat)):
                if self.chance.random() < fault.loss and self.lost[data] < 3:
                    self.lost[data] += 1
                    continue
                arrival = now + self.chance.uniform(TRAVEL_S, fault.delay_s)
                if to_client:
                    arrival = max(arrival, self.client_busy_until) + self.client_takes_s
                    self.client_busy_until = arrival if self.client_takes_s else 0.0
                heapq.heappush(self.flying, (arrival, next(self.order), to_client, data))

    def serve(self, now: float, data: bytes) -> range:
        """The server's rule for requests, and its current transfer for everything else."""
        read: Packet = decode(data)
        if not isinstance(read, ReadRequest):
            return self.transfers[-1].receive(data, now)
        if self.transfers and self.transfers[-1].takes_repeat(now):
            return range(0)
        self.transfers.append(Transfer(len(self.content), self.client.granted))
        return self.transfers[-1].start(now)

    def answer(self, now: float, blocks: range) -> None:
        granted = self.client.granted
        self.send(now, True, [packet(block, self.content, granted) for block in blocks])

    def run(self) -> None:
        """Deliver until the transfers have ended and nothing flies any more."""
        now, client_due = 0.0, Client.WAIT_S
        self.send(now, False, self.client.start())
        while self.flying or not self.transfers or self.transfers[-1].result is None:
            arrival = self.flying[0][0] if self.flying else math.inf
            deadline = self.transfers[-1].deadline if self.transfers else math.inf
            now = min(arrival, deadline, math.inf if self.client.complete else client_due)
            assert (now < 20_000, self.sent.total() < 50_000) == (True, True), "it stalls, or floods"
            if now == arrival:
                _, _, to_client, data = heapq.heappop(self.flying)
                if to_client:
                    client_due = now + Client.WAIT_S
                    self.send(now, False, self.client.receive(data))
                else:
                    self.answer(now, self.serve(now, data))
            elif now == deadline:
                blocks = self.transfers[-1].tick(now)
                self.resent += len([block for block in blocks if block])
                self.answer(now, blocks)
            else:
                client_due = now + Client.WAIT_S
                self.send(now, False, self.client.wait_ended())
