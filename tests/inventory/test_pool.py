"""Which address a machine gets, in which order addresses are used again, and that none is given twice."""

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pxeboot.config import AddressRange
from pxeboot.inventory.lease import LeaseState
from pxeboot.inventory.pool import DECLINE_SECONDS, Pool
from pxeboot.mac import Mac

SUBNET = IPv4Network("10.0.0.0/24")
HOLD, LEASE = 10.0, 100.0
A, B, C, D = (Mac(f"52:54:00:00:00:0{n}") for n in range(4))


def ip(last: int) -> IPv4Address:
    return SUBNET[last]


def pool(first: int = 10, last: int = 12) -> Pool:
    return Pool(SUBNET, (AddressRange(first=ip(first), last=ip(last)),), frozenset({ip(1)}))


def lease(pool: Pool, mac: Mac, now: float, wanted: IPv4Address | None = None) -> IPv4Address | None:
    address = pool.offer(mac, wanted, now, HOLD)
    if address is not None:
        assert pool.allows(mac, address, now)
        pool.bind(mac, address, now + LEASE)
    return address


def test_fresh_addresses_come_in_order_until_none_is_left() -> None:
    machines = pool()
    assert [lease(machines, mac, 0.0) for mac in (A, B, C, D)] == [ip(10), ip(11), ip(12), None]


def test_a_machine_gets_its_own_address_again_even_after_it_expired() -> None:
    machines = pool()
    lease(machines, A, 0.0)
    assert lease(machines, A, 1000.0) == ip(10)


def test_a_wanted_address_is_given_where_it_is_free() -> None:
    machines = pool()
    assert lease(machines, A, 0.0, wanted=ip(12)) == ip(12)
    assert lease(machines, B, 0.0, wanted=ip(12)) == ip(10)


def test_our_own_address_and_those_outside_the_pool_are_never_given() -> None:
    machines = pool(1, 3)
    assert lease(machines, A, 0.0, wanted=ip(1)) == ip(2)
    assert not machines.allows(A, ip(50), 0.0)
    assert not machines.allows(A, IPv4Address("10.9.9.9"), 0.0)


def test_an_offer_is_held_and_then_free_for_others() -> None:
    machines = pool(10, 10)
    assert machines.offer(A, None, 0.0, HOLD) == ip(10)
    assert machines.offer(B, None, HOLD - 1, HOLD) is None
    assert machines.offer(B, None, HOLD, HOLD) == ip(10)
    assert not machines.allows(A, ip(10), HOLD)


def test_what_was_given_back_goes_before_what_expired_and_oldest_first() -> None:
    machines = pool()
    lease(machines, A, 0.0)
    lease(machines, B, 1.0)
    lease(machines, C, 2.0)
    machines.release(C, ip(12), 50.0)
    assert lease(machines, D, 200.0) == ip(12)
    other = Mac("52:54:00:00:00:0f")
    assert lease(machines, other, 200.0) == ip(10)


def test_a_renewed_lease_is_not_taken_for_expired() -> None:
    machines = pool(10, 11)
    lease(machines, A, 0.0)
    lease(machines, B, 0.0)
    machines.bind(A, ip(10), 1000.0)
    assert lease(machines, C, 200.0) == ip(11)
    assert lease(machines, D, 200.0) is None


def test_a_declined_address_rests() -> None:
    machines = pool(10, 10)
    lease(machines, A, 0.0)
    declined = machines.decline(A, ip(10), 5.0)
    assert declined is not None
    assert declined.state is LeaseState.DECLINED
    assert lease(machines, A, 6.0) is None
    assert lease(machines, B, 5.0 + DECLINE_SECONDS) == ip(10)


def test_nobody_releases_or_declines_for_another() -> None:
    machines = pool()
    lease(machines, A, 0.0)
    assert machines.release(B, ip(10), 1.0) is None
    assert machines.decline(B, ip(10), 1.0) is None
    assert machines.lease_at(ip(10)) is not None


def test_a_reservation_holds_inside_and_outside_the_pool() -> None:
    machines = pool()
    machines.reserve({A: ip(10), B: ip(50), C: IPv4Address("10.9.9.9")})
    assert lease(machines, D, 0.0) == ip(11)
    assert lease(machines, A, 0.0) == ip(10)
    assert lease(machines, B, 0.0) == ip(50)
    assert lease(machines, C, 0.0) == ip(12)


def test_an_address_is_usable_again_when_its_reservation_goes() -> None:
    machines = pool(10, 11)
    machines.reserve({A: ip(10)})
    assert lease(machines, B, 0.0) == ip(11)
    machines.reserve({})
    assert lease(machines, C, 0.0) == ip(10)


def test_candidates_are_what_newcomers_get_next() -> None:
    machines = pool(10, 14)
    lease(machines, A, 0.0, wanted=ip(11))
    machines.reserve({B: ip(12)})
    assert machines.candidates(2, 1.0) == [ip(10)]  # 11 is leased
    assert machines.candidates(9, 1.0) == [ip(13), ip(14)]  # 12 is reserved
    assert machines.candidates(9, 1.0) == [ip(10), ip(13), ip(14)]  # those never given are all told
    assert machines.candidates(9, LEASE) == [ip(10), ip(13), ip(14), ip(11)]  # what expired comes last
    assert [lease(machines, mac, 1.0) for mac in (C, D)] == [ip(10), ip(13)]  # none of them was held


def test_an_address_that_somebody_answers_for_is_his_alone_for_a_time() -> None:
    machines = pool(10, 10)
    machines.offer(A, None, 0.0, HOLD)
    found = machines.quarantine(ip(10), B, 5.0)
    assert found is not None
    assert (found.mac, found.state) == (B, LeaseState.CONFLICT)
    assert machines.lease_of(A) is None  # the offer is void
    assert not machines.allows(A, ip(10), 6.0)
    assert machines.candidates(9, 6.0) == []
    assert machines.allows(B, ip(10), 6.0)
    assert lease(machines, A, 5.0 + DECLINE_SECONDS) == ip(10)


def test_a_machine_that_outstays_its_lease_can_have_its_address_again() -> None:
    machines = pool(10, 11)
    lease(machines, A, 0.0)
    machines.quarantine(ip(10), A, LEASE + 1)
    assert lease(machines, B, LEASE + 2) == ip(11)
    assert lease(machines, A, LEASE + 3) == ip(10)


@pytest.mark.parametrize("how", ["declined", "conflict"])
def test_a_quarantine_that_is_lifted_leaves_the_address_for_the_next(how: str) -> None:
    machines = pool(10, 10)
    lease(machines, A, 0.0)
    if how == "declined":
        machines.decline(A, ip(10), 5.0)
    else:
        machines.release(A, ip(10), 4.0)
        machines.quarantine(ip(10), B, 5.0)
    assert machines.offer(C, None, 6.0, HOLD) is None
    lifted = machines.lift(ip(10), 7.0)
    assert lifted is not None
    assert not lifted.quarantined(7.0)
    assert machines.candidates(9, 7.0) == [ip(10)]
    assert lease(machines, C, 8.0) == ip(10)


def test_only_a_quarantine_can_be_lifted() -> None:
    machines = pool()
    lease(machines, A, 0.0)
    assert machines.lift(ip(10), 1.0) is None
    assert machines.lift(ip(11), 1.0) is None
    machines.quarantine(ip(11), B, 1.0)
    assert machines.lift(ip(11), 1.0 + DECLINE_SECONDS) is None  # it was over


def test_who_holds_an_address_without_a_lease_keeps_the_lease_it_has_elsewhere() -> None:
    machines = pool()
    assert lease(machines, A, 0.0) == ip(10)
    machines.quarantine(ip(11), A, 1.0)
    machines.lift(ip(11), 2.0)
    known = machines.lease_of(A)
    assert known is not None
    assert known.address == ip(10)


def test_a_leased_address_is_not_taken_from_its_machine() -> None:
    machines = pool()
    lease(machines, A, 0.0)
    assert machines.quarantine(ip(10), B, 1.0) is None
    assert machines.allows(A, ip(10), 1.0)


class AnyHistory(RuleBasedStateMachine):
    """Any sequence of requests: no address is ever promised to two machines at once."""

    macs = st.sampled_from([Mac(f"52:54:00:00:01:0{n}") for n in range(8)])
    lasts = st.one_of(st.none(), st.integers(8, 16))

    @initialize()
    def start(self) -> None:
        self.pool = pool(10, 14)
        self.now = 0.0
        self.promised: dict[IPv4Address, tuple[Mac, float]] = {}

    @rule(mac=macs, last=lasts)
    def ask(self, mac: Mac, last: int | None) -> None:
        address = self.pool.offer(mac, ip(last) if last else None, self.now, HOLD)
        if address is not None:
            assert self.pool.allows(mac, address, self.now)

    @rule(mac=macs, last=st.integers(8, 16))
    def take(self, mac: Mac, last: int) -> None:
        if self.pool.allows(mac, ip(last), self.now):
            holder, until = self.promised.get(ip(last), (mac, 0.0))
            assert holder == mac or until <= self.now
            self.pool.bind(mac, ip(last), self.now + LEASE)
            self.promised[ip(last)] = (mac, self.now + LEASE)

    @rule(mac=macs, last=st.integers(8, 16))
    def give_back(self, mac: Mac, last: int) -> None:
        if self.pool.release(mac, ip(last), self.now):
            self.promised.pop(ip(last), None)

    @rule(mac=macs, last=st.integers(8, 16))
    def refuse(self, mac: Mac, last: int) -> None:
        if self.pool.decline(mac, ip(last), self.now):
            self.promised.pop(ip(last), None)

    @rule(mac=macs, last=st.integers(8, 16))
    def conflict(self, mac: Mac, last: int) -> None:
        if self.pool.quarantine(ip(last), mac, self.now):
            assert self.promised.get(ip(last), (mac, 0.0))[1] <= self.now
            self.promised.pop(ip(last), None)

    @rule(last=st.integers(8, 16))
    def lift(self, last: int) -> None:
        self.pool.lift(ip(last), self.now)

    @rule(count=st.integers(1, 4))
    def look_ahead(self, count: int) -> None:
        for address in self.pool.candidates(count, self.now):
            assert self.promised.get(address, (None, 0.0))[1] <= self.now

    @rule(seconds=st.sampled_from([1.0, HOLD, LEASE, DECLINE_SECONDS]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def an_active_lease_is_found_by_its_machine(self) -> None:
        for lease in self.pool:
            if lease.active(self.now) and lease.state is LeaseState.BOUND:
                assert self.promised[lease.address][0] == lease.mac


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
