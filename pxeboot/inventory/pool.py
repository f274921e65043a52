"""Which address does a machine get? One subnet's leases in memory, and the order in which they are reused."""

import heapq
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from itertools import chain, islice

from pxeboot.config import AddressRange
from pxeboot.inventory.lease import Lease, LeaseState
from pxeboot.mac import Mac

DECLINE_SECONDS = 3600
"""How long an address that answered to somebody else stays out of use."""
NEWCOMER = Mac("00:00:00:00:00:00")
"""Stands for a machine that has no lease and no reservation here."""


class Pool:
    """The leases of one subnet, by address and by machine.

    Every operation costs the same however many leases there are: addresses never given come from an
    iterator, given-back ones from an ordered dictionary, expired ones from a heap whose entries may be out
    of date and are put right when they come up. Keys are numbers: an `IPv4Address` is hashed and compared in
    Python, and a storm does that ten times per exchange.
    """

    def __init__(
        self,
        subnet: IPv4Network,
        ranges: tuple[AddressRange, ...],
        own: frozenset[IPv4Address],
        leases: Iterable[Lease] = (),
    ) -> None:
        """`own` are the addresses that are ours or the router's, which no machine may get."""
        self.subnet = subnet
        self._subnet = range(int(subnet.network_address), int(subnet.broadcast_address) + 1)
        self._ranges = [range(int(item.first), int(item.last) + 1) for item in ranges]
        self._own = {int(address) for address in own}
        self._reservations: dict[Mac, IPv4Address] = {}
        self._reserved: dict[int, Mac] = {}
        self._by_address: dict[int, Lease] = {}
        self._by_mac: dict[Mac, Lease] = {}
        self._fresh = chain.from_iterable(ranges)
        self._given_back: dict[int, IPv4Address] = {}  # oldest first
        self._expiring: list[tuple[float, int]] = []
        for lease in leases:
            self._keep(lease)

    def __iter__(self) -> Iterator[Lease]:
        return iter(self._by_address.values())

    def reserve(self, reservations: Mapping[Mac, IPv4Address]) -> None:
        """Keep these addresses, inside the ranges or not, for these machines only."""
        self._reservations = {mac: item for mac, item in reservations.items() if item in self.subnet}
        self._reserved = {int(address): mac for mac, address in self._reservations.items()}

    def lease_at(self, address: IPv4Address) -> Lease | None:
        """The last lease of an address, whatever its state."""
        return self._by_address.get(int(address))

    def lease_of(self, mac: Mac) -> Lease | None:
        """The last lease of a machine, whatever its state."""
        return self._by_mac.get(mac)

    def allows(self, mac: Mac, address: IPv4Address, now: float) -> bool:
        """Whether this machine may have this address now."""
        number = int(address)
        if number not in self._subnet or number in self._own:
            return False
        owner = self._reserved.get(number)
        if owner != mac and (owner is not None or not self._in_ranges(number)):
            return False
        lease = self._by_address.get(number)
        return lease is None or lease.free_for(mac, now)

    def preferred(self, mac: Mac, wanted: IPv4Address | None, now: float) -> IPv4Address | None:
        """The address that `offer` chooses without a search; None: it would have to search. Holds nothing."""
        own = self._by_mac.get(mac)
        reserved = self._reservations.get(mac)
        if reserved is not None and self.allows(mac, reserved, now):
            return reserved
        if own is not None and self.allows(mac, own.address, now):
            return own.address
        if wanted is not None and self.allows(mac, wanted, now):
            return wanted
        return None

    def offer(
        self,
        mac: Mac,
        wanted: IPv4Address | None,
        now: float,
        hold_seconds: float,
    ) -> IPv4Address | None:
        """Choose an address for a machine and hold it.

        In this order: the reserved one; the one it has or had, so that firmware, loader, initrd and system
        all get the same (RFC 2131 §4.3.1); the one it wants; one never given; one given back; the one that
        expired longest ago. None: the pool is exhausted.
        """
        address = self.preferred(mac, wanted, now) or self._unused(mac, now)
        if address is None:
            return None
        lease = self.lease_at(address)
        if lease is None or lease.mac != mac or not lease.active(now):
            self._keep(Lease(address, mac, LeaseState.OFFERED, now + hold_seconds))
        return address

    def bind(self, mac: Mac, address: IPv4Address, expires: float) -> Lease:
        """Promise the address; the caller has asked `allows`. Returns the lease to be written down."""
        lease = Lease(address, mac, LeaseState.BOUND, expires)
        self._keep(lease)
        return lease

    def release(self, mac: Mac, address: IPv4Address, now: float) -> Lease | None:
        """Take an address back from its machine; None if it does not have it."""
        lease = self.lease_at(address)
        if lease is None or lease.mac != mac or not lease.active(now):
            return None
        released = Lease(address, mac, LeaseState.RELEASED, now)
        self._keep(released)
        return released

    def decline(self, mac: Mac, address: IPv4Address, now: float) -> Lease | None:
        """Put an address out of use that its machine found taken; None if the machine was not given it."""
        lease = self.lease_at(address)
        if lease is None or lease.mac != mac or not lease.active(now):
            return None
        declined = Lease(address, mac, LeaseState.DECLINED, now + DECLINE_SECONDS)
        self._keep(declined)
        return declined

    def candidates(self, count: int, now: float) -> list[IPv4Address]:
        """Up to `count` addresses that newcomers would be given next, in that order, held for nobody.

        An address never given is told once; where there are none left, the others whenever this is asked.
        """
        drawn = [address for address in islice(self._fresh, count) if int(address) not in self._by_address]
        # There for who cannot wait for what the caller does.
        self._given_back.update((int(address), address) for address in drawn)
        found = [address for address in drawn if self.allows(NEWCOMER, address, now)]
        if found:
            return found
        allowed = (address for address in self._given_back.values() if self.allows(NEWCOMER, address, now))
        found = list(islice(allowed, count))
        return found + self._expired(NEWCOMER, now, count - len(found))

    def quarantine(self, address: IPv4Address, holder: Mac, now: float) -> Lease | None:
        """Put an address out of use that `holder` answers for; None where it is rightly somebody's."""
        lease = self.lease_at(address)
        if lease is not None and lease.state is LeaseState.BOUND and lease.active(now):
            return None
        found = Lease(address, holder, LeaseState.CONFLICT, now + DECLINE_SECONDS)
        self._keep(found)
        return found

    def lift(self, address: IPv4Address, now: float) -> Lease | None:
        """End a quarantine before its time; None where there is none. The address is given again at once."""
        lease = self.lease_at(address)
        if lease is None or not lease.quarantined(now):
            return None
        lifted = replace(lease, expires=now)
        self._keep(lifted)
        self._given_back[int(address)] = address
        return lifted

    def _keep(self, lease: Lease) -> None:
        number = int(lease.address)
        before = self._by_address.get(number)
        if before is None:
            heapq.heappush(self._expiring, (lease.expires, number))
        was_its = before is not None and self._by_mac.get(before.mac) is before
        if before is not None and was_its:
            del self._by_mac[before.mac]
            was_its = before.mac == lease.mac
        self._by_address[number] = lease
        self._given_back.pop(number, None)
        if lease.state is LeaseState.RELEASED:
            self._given_back[number] = lease.address
        if lease.state is LeaseState.DECLINED:
            return  # who declined an address wants another
        if was_its or lease.state is not LeaseState.CONFLICT:  # the holder has not got it from us
            self._by_mac[lease.mac] = lease

    def _in_ranges(self, number: int) -> bool:
        for item in self._ranges:  # noqa: SIM110  `any` with a generator takes four times as long
            if number in item:
                return True
        return False

    def _unused(self, mac: Mac, now: float) -> IPv4Address | None:
        for address in self._fresh:
            if int(address) in self._by_address:
                continue
            if self.allows(mac, address, now):
                return address
            self._given_back[int(address)] = address  # somebody's reservation today, perhaps not tomorrow
        for address in self._given_back.values():
            if self.allows(mac, address, now):
                return address
        return next(iter(self._expired(mac, now, 1)), None)

    def _expired(self, mac: Mac, now: float, count: int) -> list[IPv4Address]:
        """Up to `count` allowed addresses, those first whose leases have been over for longest."""
        passed: list[tuple[float, int]] = []
        found: list[IPv4Address] = []
        while len(found) < count and self._expiring and self._expiring[0][0] <= now:
            noted, number = heapq.heappop(self._expiring)
            lease = self._by_address[number]
            if lease.expires > noted:
                heapq.heappush(self._expiring, (lease.expires, number))
                continue
            passed.append((noted, number))
            if self.allows(mac, lease.address, now):
                found.append(lease.address)
        for entry in passed:
            heapq.heappush(self._expiring, entry)
        return found
