"""Slots and queue of root downloads, with `now` by hand."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from pxeboot.mac import Mac
from pxeboot.web.admission import HELD_SECONDS, LONGEST_PAUSE, PATIENCE_SECONDS, Admission, Turn

GO = Turn()


def mac(number: int) -> Mac:
    return Mac(f"52:54:00:00:{number >> 8:02x}:{number & 255:02x}")


def queue(slots: int | None = 2, nodes: int = 0) -> Admission:
    """An admission whose first `nodes` nodes have asked at 0, without spread."""
    made = Admission(slots, lambda: 1.0)
    for number in range(nodes):
        made.ask(mac(number), 0.0)
    return made


def test_so_many_load_as_there_are_slots_and_the_rest_wait_in_order() -> None:
    made = queue()
    places = [made.ask(mac(number), 0.0).place for number in range(5)]
    assert (places, made.loading, made.waiting) == ([0, 0, 1, 2, 3], 2, 3)


def test_without_a_limit_nobody_waits() -> None:
    made = queue(None)
    assert all(made.ask(mac(number), 0.0) == GO for number in range(1000))


def test_the_first_refused_is_the_first_admitted() -> None:
    made = queue(nodes=4)
    made.end(mac(0), 1.0, whole=True)
    assert (made.ask(mac(3), 1.0).place, made.ask(mac(4), 1.0).place) == (2, 3)
    assert made.ask(mac(2), 1.0) == GO
    assert made.ask(mac(3), 1.0).place == 1


def test_a_slot_does_not_stay_empty_for_a_node_that_pauses() -> None:
    made = queue(slots=1, nodes=4)
    made.end(mac(0), 2.5, whole=True)
    assert made.ask(mac(3), 1.9).place == 3  # the first was to come at 0 and may be late
    assert made.ask(mac(3), 2.5) == GO  # the second was told to come at 4
    assert made.ask(mac(1), 2.6).place == 1


def test_a_download_that_broke_keeps_its_slot_for_a_while() -> None:
    made = queue(nodes=3)
    made.end(mac(0), 1.0, whole=False)
    assert made.ask(mac(2), 2.0).place == 1
    assert made.ask(mac(0), 1.0 + HELD_SECONDS - 0.1) == GO
    made.end(mac(0), 12.0, whole=False)
    assert made.ask(mac(2), 12.0 + HELD_SECONDS) == GO
    assert made.ask(mac(0), 13.0 + HELD_SECONDS).place == 1


def test_several_connections_of_one_node_are_one_download() -> None:
    made = queue(slots=1)
    assert [made.ask(mac(0), 0.0), made.ask(mac(0), 0.0)] == [GO, GO]
    made.end(mac(0), 1.0, whole=True)
    assert made.ask(mac(1), 1.0).place == 1
    made.end(mac(0), 2.0, whole=True)
    assert made.ask(mac(1), 2.0) == GO


def test_a_node_that_does_not_come_back_loses_its_place() -> None:
    made = queue(slots=1, nodes=3)
    made.ask(mac(2), 5.0)
    assert made.place(mac(2)) == 2
    made.ask(mac(2), PATIENCE_SECONDS)
    assert (made.place(mac(1)), made.place(mac(2))) == (0, 1)


def test_pauses_grow_with_the_place_and_end_at_half_a_minute() -> None:
    made = queue(slots=2, nodes=2)
    pauses = [made.ask(mac(number), 0.0).retry_seconds for number in range(2, 80)]
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (1, LONGEST_PAUSE)
    assert 4 <= pauses[7] <= 12  # three downloads away


def test_pauses_follow_how_long_downloads_take() -> None:
    slow, fast = queue(slots=1, nodes=1), queue(slots=1, nodes=1)
    slow.end(mac(0), 60.0, whole=True)
    fast.end(mac(0), 0.1, whole=True)
    for made in (slow, fast):
        for number in range(4):
            made.ask(mac(number), 60.0)
    assert slow.ask(mac(3), 60.0).retry_seconds > fast.ask(mac(3), 60.0).retry_seconds


def test_who_is_soon_is_told_so() -> None:
    made = queue(slots=2, nodes=2)
    assert [made.ask(mac(number), 0.0).soon for number in range(2, 6)] == [True, True, False, False]


@settings(deadline=None)
@given(st.integers(1, 8), st.integers(1, 60), st.integers(0, 2**32))
def test_everybody_gets_the_image_never_more_at_once_than_slots_and_nobody_is_left_behind(
    slots: int, nodes: int, seed: int
) -> None:
    dice = random.Random(seed)
    made = Admission(slots, dice.random)
    asking = {mac(number): dice.random() for number in range(nodes)}  # when each asks next
    ending: dict[Mac, float] = {}
    done: dict[Mac, float] = {}
    now = 0.0
    while asking or ending:
        now = min((*asking.values(), *ending.values()))
        for key in [key for key, at in ending.items() if at <= now]:
            del ending[key]
            whole = dice.random() < 0.8
            made.end(key, now, whole=whole)
            if whole:
                done[key] = now
            else:
                asking[key] = now + dice.random() * HELD_SECONDS * 0.9
        for key in [key for key, at in asking.items() if at <= now]:
            turn = made.ask(key, now)
            if turn.place:
                asking[key] = now + turn.retry_seconds
            else:
                del asking[key]
                ending[key] = now + 1 + dice.random()
        assert len(ending) <= made.loading <= slots
    assert (len(done), made.loading, made.waiting) == (nodes, 0, 0)
    assert now <= 2 + nodes / slots * (2 + 1 + 2 * HELD_SECONDS) + LONGEST_PAUSE
