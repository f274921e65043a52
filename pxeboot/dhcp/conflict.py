"""Which addresses to probe, when, and what the answers mean: a state machine without clock or socket.

An address must be probed before it is first offered to a machine, and a probe takes its time, for silence
is the good answer. So a stock of free addresses is probed ahead of need and kept up while it is used: who
asks is offered one at once. What is not from the stock (the address a machine asks for, a reservation) is
probed on demand, and only the answer to its own DISCOVER waits.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from pxeboot.dhcp.arp import Claim
from pxeboot.mac import Mac

PROBES = 2
"""Frames sent for an address: one may be lost."""
PROBE_SECONDS = 0.2
"""Silence after each frame. Machines of a segment answer within milliseconds; RFC 5227's seconds are for
hosts that join without hurry, while iPXE repeats its DISCOVER after one second and EDK2 after four."""
STOCK = 1024
"""Addresses kept probed per network: as many machines, switched on at once, are offered theirs at once."""
REFILL = STOCK // 8
"""Addresses that must be missing before more are asked for. Small, since a probe takes its time: of 1 500
newcomers a second none was offered an unprobed address, of 1 000 a quarter where half the stock had to go."""
FRESH_SECONDS = 300.0
"""After that an address in the stock is probed again: at most seven frames a second, with a full stock."""
MAX_ON_DEMAND = 256
"""Machines that wait for a probe at once. Beyond that a storm goes on without: it must not be slowed."""
STARTS_PER_ROUND = 64
"""Addresses whose probing begins in one round, so that filling the stock is no burst on the wire."""
MAX_PER_HOLDER = 16
"""Addresses that one machine can put out of use: who answers for more answers for all (proxy ARP)."""


@dataclass(slots=True, eq=False)
class _Test:
    """An address under probe."""

    address: IPv4Address
    client: Mac | None
    """Who waits for it, and may answer. None: it is for the stock."""
    sent: int = 0


@dataclass(slots=True)
class Round:
    """What one tick leads to."""

    ask: list[IPv4Address] = field(default_factory=list)
    """Send a probe for each of these."""
    free: list[IPv4Address] = field(default_factory=list)
    """Nobody answered for these."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """Somebody answers for an address that we were about to give."""

    address: IPv4Address
    holder: Mac
    count: int
    """Addresses that he has answered for; at MAX_PER_HOLDER he is no longer believed."""


class Probing:
    """The addresses of one network that are being probed, and the stock of those found free."""

    def __init__(self) -> None:
        self._tests: dict[IPv4Address, _Test] = {}
        self._waiting: deque[_Test] = deque()
        self._due: deque[tuple[float, _Test]] = deque()
        self._stock: dict[IPv4Address, float] = {}  # when found free, longest ago first
        self._held: dict[Mac, set[IPv4Address]] = {}
        self._on_demand = 0

    def awaited(self, address: IPv4Address) -> bool:
        """Whether a machine waits for what the probe of this address will show."""
        test = self._tests.get(address)
        return test is not None and test.client is not None

    @property
    def busy(self) -> bool:
        """Whether anything is being probed."""
        return bool(self._tests)

    @property
    def stock(self) -> int:
        """How many addresses are ready to be offered."""
        return len(self._stock)

    @property
    def shortage(self) -> int:
        """How many addresses the stock wants; 0 while that is not worth asking for them."""
        present = len(self._stock) + len(self._tests)
        return 0 if present > STOCK - REFILL else STOCK - present

    def add(self, addresses: Iterable[IPv4Address]) -> None:
        """Probe these for the stock, unless that is done or under way."""
        for address in addresses:
            if address not in self._stock and address not in self._tests:
                self._waiting.append(self._test(address, None))

    def refresh(self, now: float) -> None:
        """Probe again what was found free long ago; it may be taken meanwhile."""
        for address, found in self._stock.items():
            if now - found < FRESH_SECONDS:
                break
            if address not in self._tests:
                self._waiting.append(self._test(address, None))

    def demand(self, address: IPv4Address, client: Mac) -> bool:
        """Probe an address before all others, for a machine that waits. False: too many wait already."""
        test = self._tests.get(address)
        if test is not None and test.client is not None:
            return True
        if self._on_demand >= MAX_ON_DEMAND:
            return False
        self._on_demand += 1
        if test is not None:
            test.client = client
        else:
            self._waiting.appendleft(self._test(address, client))
        return True

    def next_free(self) -> IPv4Address | None:
        """The address that was found free longest ago."""
        return next(iter(self._stock), None)

    def take(self, address: IPv4Address) -> bool:
        """Remove an address from the stock: it is given away. False: it was not there."""
        if self._stock.pop(address, None) is None:
            return False
        self._tests.pop(address, None)  # its new owner may answer
        return True

    def tick(self, now: float) -> Round:
        """Go on with every probe whose time has come."""
        told = Round()
        for _ in range(min(STARTS_PER_ROUND, len(self._waiting))):
            self._ask(self._waiting.popleft(), now, told)
        while self._due and self._due[0][0] <= now:
            _, test = self._due.popleft()
            if test.sent < PROBES:
                self._ask(test, now, told)
            elif self._end(test):
                told.free.append(test.address)
                if test.client is None:
                    self._stock.pop(test.address, None)  # to the end of the row
                    self._stock[test.address] = now
        return told

    def hear(self, claim: Claim) -> Conflict | None:
        """Judge what an ARP packet says of its sender.

        A probe of somebody else (sender 0.0.0.0) is no conflict here, though it is one in RFC 5227 §2.1.1:
        two boot servers that start together would quarantine each other's whole pools.
        """
        test = self._tests.get(claim.address)
        if test is None or claim.mac == test.client:
            return None
        held = self._held.setdefault(claim.mac, set())
        if len(held) >= MAX_PER_HOLDER and claim.address not in held:
            return None
        held.add(claim.address)
        self._end(test)
        self._stock.pop(claim.address, None)
        return Conflict(claim.address, claim.mac, len(held))

    def _test(self, address: IPv4Address, client: Mac | None) -> _Test:
        self._tests[address] = test = _Test(address, client)
        return test

    def _ask(self, test: _Test, now: float, told: Round) -> None:
        if self._tests.get(test.address) is test:
            test.sent += 1
            told.ask.append(test.address)
            self._due.append((now + PROBE_SECONDS, test))

    def _end(self, test: _Test) -> bool:
        """Forget a test. False: it has been forgotten already."""
        if self._tests.get(test.address) is not test:
            return False
        del self._tests[test.address]
        self._on_demand -= test.client is not None
        return True
