"""Slots and queue of root downloads, with `now` by hand."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from pxeboot.mac import Mac
from pxeboot.web.admission import DOOR_PLACES, HELD_SECONDS, LONGEST_PAUSE, PATIENCE_SECONDS, Admission, Turn

GO = Turn()
SECONDS = 4.0  # what a download is thought to take


def mac(number: int) -> Mac:
    return Mac(f"52:54:00:00:{number >> 8:02x}:{number & 255:02x}")


def queue(slots: int | None = 2, nodes: int = 0) -> Admission:
    """An admission whose first `nodes` nodes have asked at 0, without spread."""
    made = Admission(slots, lambda: 1.0)
    for number in range(nodes):
        made.ask(mac(number), 0.0, SECONDS)
    return made


def test_so_many_load_as_there_are_slots_and_the_rest_wait_in_order() -> None:
    made = queue()
    places = [made.ask(mac(number), 0.0, SECONDS).place for number in range(5)]
    assert (places, made.loading, made.waiting) == ([0, 0, 1, 2, 3], 2, 3)


def test_without_a_limit_nobody_waits() -> None:
    made = queue(None)
    assert all(made.ask(mac(number), 0.0, SECONDS) == GO for number in range(1000))


def test_the_first_refused_is_the_first_admitted() -> None:
    made = queue(nodes=4)
    made.end(mac(0), 1.0, whole=True)
    assert (made.ask(mac(3), 1.0, SECONDS).place, made.ask(mac(4), 1.0, SECONDS).place) == (2, 3)
    assert made.ask(mac(2), 1.0, SECONDS) == GO
    assert made.ask(mac(3), 1.0, SECONDS).place == 1


def test_a_slot_does_not_stay_empty_for_nodes_that_are_late_or_pause() -> None:
    made = queue(slots=1, nodes=1 + DOOR_PLACES)
    assert made.ask(mac(100), 0.0, SECONDS).retry_seconds == 4
    assert made.ask(mac(101), 0.0, SECONDS).place == DOOR_PLACES + 2
    made.end(mac(0), 2.5, whole=True)
    assert made.ask(mac(101), 1.9, SECONDS).place == DOOR_PLACES + 2  # those at the door may be a little late
    assert made.ask(mac(101), 2.5, SECONDS) == GO  # they are gone, and the other comes at 4
    assert made.ask(mac(1), 2.6, SECONDS).place == 1


def test_a_download_that_broke_keeps_its_slot_for_a_while() -> None:
    made = queue(nodes=3)
    made.end(mac(0), 1.0, whole=False)
    assert made.ask(mac(2), 2.0, SECONDS).place == 1
    assert made.ask(mac(0), 1.0 + HELD_SECONDS - 0.1, SECONDS) == GO
    made.end(mac(0), 12.0, whole=False)
    assert made.ask(mac(2), 12.0 + HELD_SECONDS, SECONDS) == GO
    assert made.ask(mac(0), 13.0 + HELD_SECONDS, SECONDS).place == 1


def test_several_connections_of_one_node_are_one_download() -> None:
    made = queue(slots=1)
    assert [made.ask(mac(0), 0.0, SECONDS), made.ask(mac(0), 0.0, SECONDS)] == [GO, GO]
    made.end(mac(0), 1.0, whole=True)
    assert made.ask(mac(1), 1.0, SECONDS).place == 1
    made.end(mac(0), 2.0, whole=True)
    assert made.ask(mac(1), 2.0, SECONDS) == GO


def test_a_node_that_does_not_come_back_loses_its_place() -> None:
    made = queue(slots=1, nodes=3)
    made.ask(mac(2), 5.0, SECONDS)
    assert made.place(mac(2)) == 2
    made.ask(mac(2), PATIENCE_SECONDS, SECONDS)
    assert (made.place(mac(1)), made.place(mac(2))) == (0, 1)


def test_pauses_grow_with_the_place_and_have_an_end() -> None:
    made = queue(slots=2, nodes=2 + DOOR_PLACES)
    pauses = [made.ask(mac(number), 0.0, SECONDS).retry_seconds for number in range(100, 140)]
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[1], pauses[-1]) == (2, 4, LONGEST_PAUSE)  # one download ahead, two, many


def test_pauses_follow_how_long_downloads_take() -> None:
    slow, fast = queue(slots=1, nodes=40), queue(slots=1, nodes=40)
    fast.end(mac(0), 0.1, whole=True)
    slow.end(mac(0), 19.0, whole=True)
    assert (fast.ask(mac(1), 0.1, SECONDS), slow.ask(mac(1), 19.0, SECONDS)) == (GO, GO)
    assert slow.ask(mac(39), 19.0, SECONDS).retry_seconds == LONGEST_PAUSE
    assert fast.ask(mac(39), 0.1, SECONDS).retry_seconds == 1


def test_who_is_soon_is_told_so() -> None:
    made = queue(slots=2, nodes=2 + DOOR_PLACES - 1)
    assert [made.ask(mac(number), 0.0, SECONDS).soon for number in (100, 101)] == [True, False]
    made = queue(slots=50, nodes=50 + 49)
    assert [made.ask(mac(number), 0.0, SECONDS).soon for number in (100, 101)] == [True, False]


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
    now, breaks = 0.0, 0
    while asking or ending:
        now = min((*asking.values(), *ending.values()))
        for key in [key for key, at in ending.items() if at <= now]:
            del ending[key]
            whole = dice.random() < 0.8
            made.end(key, now, whole=whole)
            if whole:
                done[key] = now
            else:
                breaks += 1
                asking[key] = now + dice.random() * HELD_SECONDS * 0.9
        for key in [key for key, at in asking.items() if at <= now]:
            turn = made.ask(key, now, SECONDS)
            if turn.place:
                asking[key] = now + (turn.retry_seconds or 1)  # the server would keep it waiting
            else:
                del asking[key]
                ending[key] = now + 1 + dice.random()
        assert len(ending) <= made.loading <= slots
    assert (len(done), made.loading, made.waiting) == (nodes, 0, 0)
    assert now <= 1 + (nodes + breaks) * (2 + HELD_SECONDS) / slots + breaks * HELD_SECONDS + LONGEST_PAUSE
