"""When addresses are probed, what silence and answers lead to, and that a storm is not slowed."""

from ipaddress import IPv4Address

from pxeboot.dhcp.arp import Claim
from pxeboot.dhcp.conflict import (
    FRESH_SECONDS,
    MAX_ON_DEMAND,
    MAX_PER_HOLDER,
    PROBE_SECONDS,
    PROBES,
    REFILL,
    STARTS_PER_ROUND,
    STOCK,
    Conflict,
    Probing,
)
from pxeboot.mac import Mac

A, B = Mac("52:54:00:00:00:0a"), Mac("52:54:00:00:00:0b")
NONE = IPv4Address(0)
END = PROBES * PROBE_SECONDS


def ip(number: int) -> IPv4Address:
    return IPv4Address("10.0.0.0") + number


def run(probing: Probing, start: float, seconds: float) -> tuple[list[IPv4Address], list[IPv4Address]]:
    """Tick every 10 ms; which addresses were asked for, and which were found free."""
    asked, free = [], []
    for step in range(round(seconds * 100) + 1):
        told = probing.tick(start + step / 100)
        asked += told.ask
        free += told.free
    return asked, free


def stocked(*numbers: int, now: float = 0.0) -> Probing:
    probing = Probing()
    probing.add(map(ip, numbers))
    run(probing, now - END, END)
    return probing


def test_silence_puts_an_address_into_the_stock_after_two_probes() -> None:
    probing = Probing()
    probing.add([ip(1), ip(2)])
    assert probing.tick(0.0).ask == [ip(1), ip(2)]
    assert probing.tick(PROBE_SECONDS - 0.01).ask == []
    assert probing.tick(PROBE_SECONDS).ask == [ip(1), ip(2)]
    assert (probing.next_free(), probing.busy) == (None, True)
    assert probing.tick(END).free == [ip(1), ip(2)]
    assert (probing.next_free(), probing.busy) == (ip(1), False)


def test_what_is_taken_from_the_stock_is_gone() -> None:
    probing = stocked(1, 2)
    assert probing.take(ip(1))
    assert not probing.take(ip(1))
    assert probing.next_free() == ip(2)


def test_who_answers_has_the_address_and_it_is_asked_for_no_more() -> None:
    probing = Probing()
    probing.add([ip(1)])
    probing.tick(0.0)
    assert probing.hear(Claim(B, ip(1))) == Conflict(ip(1), B, 1)
    assert probing.hear(Claim(B, ip(1))) is None  # his second answer
    assert run(probing, 0.0, 1.0) == ([], [])
    assert probing.next_free() is None


def test_what_nobody_asked_about_and_probes_of_others_are_no_conflict() -> None:
    probing = Probing()
    probing.add([ip(1)])
    probing.tick(0.0)
    assert probing.hear(Claim(B, ip(2))) is None
    assert probing.hear(Claim(B, NONE)) is None
    assert probing.tick(PROBE_SECONDS).ask == [ip(1)]


def test_a_machine_may_answer_for_the_address_that_it_asks_for() -> None:
    probing = Probing()
    assert probing.demand(ip(1), A)
    probing.tick(0.0)
    assert probing.hear(Claim(A, ip(1))) is None
    assert run(probing, 0.0, END)[1] == [ip(1)]
    assert probing.next_free() is None  # it is that machine's, not the stock's


def test_a_machine_that_waits_is_served_before_the_stock() -> None:
    probing = Probing()
    probing.add(map(ip, range(200)))
    assert probing.demand(ip(500), A)
    assert probing.tick(0.0).ask[0] == ip(500)


def test_a_machine_joins_a_probe_that_is_under_way() -> None:
    probing = Probing()
    probing.add([ip(1)])
    probing.tick(0.0)
    assert not probing.awaited(ip(1))
    assert probing.demand(ip(1), A)
    assert probing.demand(ip(1), A)  # it repeats its DISCOVER
    assert probing.awaited(ip(1))
    assert run(probing, 0.01, END) == ([ip(1)], [ip(1)])  # only the second probe was left to be sent
    assert (probing.next_free(), probing.awaited(ip(1))) == (None, False)


def test_a_storm_waits_for_no_more_probes_than_the_bound() -> None:
    probing = Probing()
    assert all(probing.demand(ip(number), A) for number in range(MAX_ON_DEMAND))
    assert not probing.demand(ip(1000), A)
    assert probing.demand(ip(0), A)  # under way
    run(probing, 0.0, 1.0)
    assert probing.demand(ip(1000), A)
    probing.tick(2.0)
    probing.hear(Claim(B, ip(1000)))
    assert all(probing.demand(ip(number), A) for number in range(MAX_ON_DEMAND))  # conflicts free their place


def test_probes_leave_in_small_bursts() -> None:
    probing = Probing()
    probing.add(map(ip, range(1000)))
    assert [len(probing.tick(step / 100).ask) for step in range(3)] == [STARTS_PER_ROUND] * 3


def test_the_stock_is_filled_up_in_batches() -> None:
    probing = Probing()
    assert probing.shortage == STOCK
    probing.add(map(ip, range(STOCK)))
    assert probing.shortage == 0  # under way
    run(probing, 0.0, 2.0)
    for number in range(REFILL):
        assert probing.shortage == 0
        probing.take(ip(number))
    assert probing.shortage == REFILL
    probing.add(map(ip, range(REFILL, STOCK)))
    assert not probing.busy  # those are there


def test_old_stock_is_probed_again_and_usable_meanwhile() -> None:
    probing = stocked(1, 2, 3)
    probing.refresh(FRESH_SECONDS - 1)
    assert not probing.busy
    probing.refresh(FRESH_SECONDS)
    probing.refresh(FRESH_SECONDS)
    assert probing.tick(FRESH_SECONDS).ask == [ip(1), ip(2), ip(3)]
    assert probing.take(ip(2))
    assert probing.hear(Claim(B, ip(2))) is None  # its new owner
    assert probing.hear(Claim(B, ip(3))) == Conflict(ip(3), B, 1)
    assert run(probing, FRESH_SECONDS, END)[1] == [ip(1)]
    assert (probing.stock, probing.next_free()) == (1, ip(1))
    probing.refresh(FRESH_SECONDS + 10)
    assert not probing.busy  # it is fresh again


def test_what_was_probed_again_goes_to_the_end_of_the_row() -> None:
    probing = stocked(1)
    probing.add([ip(2)])
    run(probing, 100.0, END)
    probing.refresh(FRESH_SECONDS)
    assert run(probing, FRESH_SECONDS, END)[1] == [ip(1)]
    assert probing.next_free() == ip(2)
    probing.refresh(FRESH_SECONDS + 100 + END)
    assert probing.tick(FRESH_SECONDS + 101).ask == [ip(2)]


def test_who_answers_for_everything_is_believed_only_so_often() -> None:
    probing = Probing()
    probing.add(map(ip, range(60)))
    probing.tick(0.0)
    heard = [probing.hear(Claim(B, ip(number))) for number in range(60)]
    counts = [item.count for item in heard if item]
    assert counts == list(range(1, MAX_PER_HOLDER + 1))
    assert len(run(probing, 0.0, END)[1]) == 60 - MAX_PER_HOLDER
    probing.add([ip(0)])  # an hour later
    assert probing.hear(Claim(B, ip(0))) == Conflict(ip(0), B, MAX_PER_HOLDER)  # that is known to be his


def test_who_keeps_one_address_is_believed_every_time() -> None:
    probing = Probing()
    for hour in range(MAX_PER_HOLDER + 2):
        probing.add([ip(1)])
        probing.tick(hour * 3600.0)
        assert probing.hear(Claim(B, ip(1))) == Conflict(ip(1), B, 1)
