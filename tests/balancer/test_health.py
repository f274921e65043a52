from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxeboot.balancer.check import CheckConfig
from pxeboot.balancer.health import LONG_AGO, Candidate, Members, admit, has_quorum, is_trusted, judge, weight
from pxeboot.balancer.service import ServiceConfig
from pxeboot.balancer.target import HISTORY_KEPT, Health, Outcome
from pxeboot.mac import Mac

WELL, SICK, NEW = Health(passing=True), Health(passing=False), Health()
CHECK = CheckConfig(kind="tcp", rise=2, fall=3)


def service(**keys: Any) -> ServiceConfig:
    return ServiceConfig.model_validate({"name": "www", "vip": "10.0.0.9", "port": 80, "group": "web"} | keys)


SERVICE = service()
SORRY = service(sorry_server={"address": "10.0.0.5"})


def after(looks: Sequence[bool], check: CheckConfig = CHECK, start: Health = NEW) -> Health:
    health = start
    for second, good in enumerate(looks):
        text = "status 200" if good else "connection refused"
        health = judge(health, Outcome(float(second), good, text, 0.01), check)
    return health


def test_rise_looks_in_a_row_make_a_target_pass_and_fall_make_it_fail() -> None:
    assert [after([True] * count).passing for count in range(4)] == [None, None, True, True]
    assert [after([False] * count, start=WELL).passing for count in (2, 3)] == [True, False]
    assert after([False] * 3).passing is False


def test_a_single_look_the_other_way_starts_the_count_again() -> None:
    assert after([False, False, True, False, False], start=WELL).passing is True
    assert after([True, False, True]).passing is None


def test_what_settled_a_verdict_is_kept_with_its_time() -> None:
    health = after([True, True, False, False, False, False])
    assert [(turn.good, turn.at) for turn in health.turns] == [(True, 1.0), (False, 4.0)]
    assert (health.since, health.streak, health.turns[-1].text) == (4.0, 4, "connection refused")


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 5), st.integers(1, 5))
def test_a_verdict_has_that_many_looks_behind_it(looks: list[bool], rise: int, fall: int) -> None:
    check = CheckConfig(kind="tcp", rise=rise, fall=fall)
    for count in range(len(looks)):
        before, now = after(looks[:count], check), after(looks[: count + 1], check)
        if now.passing is not before.passing:
            needed = rise if now.passing else fall
            assert looks[: count + 1][-needed:] == [now.passing] * needed
        assert max(len(now.history), len(now.turns)) <= HISTORY_KEPT


@given(st.integers(2, 5), st.integers(2, 5), st.integers(0, 100), st.sampled_from([NEW, WELL, SICK]))
def test_a_target_that_flaps_at_every_look_never_changes(
    rise: int, fall: int, count: int, start: Health
) -> None:
    check = CheckConfig(kind="tcp", rise=rise, fall=fall)
    assert after([number % 2 == 0 for number in range(count)], check, start).passing is start.passing


def test_a_bad_look_that_we_ended_late_says_nothing_of_its_target() -> None:
    check = CheckConfig(kind="tcp", timeout_seconds=1.0)
    looks = [(False, 0.1), (False, 1.01), (False, 1.5), (True, 1.5)]
    assert [is_trusted(Outcome(0.0, good, "", seconds), check) for good, seconds in looks] == [
        True,
        True,
        False,
        True,
    ]


def macs(letters: str) -> set[Mac]:
    return {Mac(f"52:54:00:00:00:0{letter}") for letter in letters}


def nodes(**healths: Health | None) -> list[Candidate]:
    return [Candidate(Mac(f"52:54:00:00:00:0{letter}"), health) for letter, health in healths.items()]


def found(letters: str) -> Members:
    return Members.found(macs(letters))


def test_an_undecided_node_stays_as_the_kernel_has_it() -> None:
    members = admit(found("a"), nodes(a=NEW, b=NEW), SERVICE, 0.0)
    assert members.joined == dict.fromkeys(macs("a"), LONG_AGO)


def test_one_that_passes_joins_and_one_that_fails_leaves() -> None:
    members = admit(found("ab"), nodes(a=SICK, b=WELL, c=WELL), SERVICE, 7.0)
    assert members.joined == dict.fromkeys(macs("b"), LONG_AGO) | dict.fromkeys(macs("c"), 7.0)


def silent(letters: str) -> list[Candidate]:
    return [Candidate(mac, None, silent=True) for mac in sorted(macs(letters))]


def test_without_a_check_all_but_the_silent_are_in_service() -> None:
    assert admit(found("b"), [*nodes(a=None), *silent("b")], SERVICE, 0.0).joined.keys() == macs("a")


def test_when_all_fail_at_once_they_are_held() -> None:
    members = admit(found("abc"), nodes(a=SICK, b=WELL, c=WELL), SERVICE, 100.0)
    assert members.joined.keys() == macs("bc")
    assert not members.held
    members = admit(members, nodes(a=SICK, b=SICK, c=SICK), SERVICE, 103.0)
    assert members.joined.keys() == members.held == macs("abc")
    assert admit(members, nodes(a=SICK, b=SICK, c=SICK), SERVICE, 9999.0).held == macs("abc")


def test_failures_far_apart_empty_the_service() -> None:
    members = admit(found("ab"), nodes(a=SICK, b=WELL), SERVICE, 100.0)
    assert not admit(members, nodes(a=SICK, b=SICK), SERVICE, 121.0).joined


def test_rare_checks_have_more_time_to_fail_together() -> None:
    rare = service(check={"kind": "tcp", "interval_seconds": 60, "fall": 2})
    members = admit(found("ab"), nodes(a=SICK, b=WELL), rare, 100.0)
    assert admit(members, nodes(a=SICK, b=SICK), rare, 220.0).held == macs("ab")


def test_a_single_node_that_fails_is_believed() -> None:
    assert not admit(found("a"), nodes(a=SICK), SERVICE, 0.0).joined


@pytest.mark.parametrize(
    ("keys", "held"),
    [
        ({}, True),
        ({"keep_when_all_fail": False}, False),
        ({"sorry_server": {"address": "10.0.0.5"}}, False),
        ({"sorry_server": {"address": "10.0.0.5"}, "keep_when_all_fail": True}, True),
    ],
)
def test_a_sorry_server_comes_before_holding_unless_told_otherwise(keys: dict[str, Any], held: bool) -> None:
    assert bool(admit(found("ab"), nodes(a=SICK, b=SICK), service(**keys), 0.0).held) is held


def test_when_all_fall_silent_at_once_they_are_held() -> None:
    assert admit(found("ab"), silent("ab"), SERVICE, 0.0).held == macs("ab")


def test_held_nodes_have_their_time_to_recover_when_the_first_is_well_again() -> None:
    members = admit(found("abc"), nodes(a=SICK, b=SICK, c=SICK), SERVICE, 0.0)
    members = admit(members, nodes(a=WELL, b=SICK, c=SICK), SERVICE, 500.0)
    assert members.joined.keys() == macs("abc")
    members = admit(members, nodes(a=WELL, b=WELL, c=SICK), SERVICE, 510.0)
    assert members.joined.keys() == macs("abc")
    members = admit(members, nodes(a=WELL, b=WELL, c=SICK), SERVICE, 520.5)
    assert members.joined.keys() == macs("ab")
    assert not members.held


def test_a_held_node_that_restarts_or_is_drained_leaves() -> None:
    members = admit(found("ab"), nodes(a=SICK, b=SICK), SERVICE, 0.0)
    assert admit(members, nodes(b=SICK), SERVICE, 1.0).joined.keys() == macs("b")


def test_who_joined_keeps_its_time_until_it_leaves() -> None:
    members = admit(Members(), nodes(a=WELL), SERVICE, 5.0)
    assert list(admit(members, nodes(a=WELL), SERVICE, 9.0).joined.values()) == [5.0]
    gone = admit(members, nodes(a=SICK), SERVICE, 10.0)
    assert list(admit(gone, nodes(a=WELL), SERVICE, 12.0).joined.values()) == [12.0]


def test_the_quorum_has_its_hysteresis() -> None:
    wanted = service(quorum=4, hysteresis=1)
    assert [has_quorum(False, count, wanted) for count in (4, 5)] == [False, True]
    assert [has_quorum(True, count, wanted) for count in (2, 3)] == [False, True]


rounds = st.lists(
    st.tuples(
        st.dictionaries(
            st.sampled_from(sorted(macs("abcde"))),
            st.tuples(st.sampled_from([WELL, SICK, NEW, None]), st.booleans()),
        ),
        st.floats(0.0, 30.0),
    ),
    max_size=12,
)


@given(st.sets(st.sampled_from(sorted(macs("abcde")))), rounds, st.sampled_from([SERVICE, SORRY]))
def test_invariants_of_membership(
    kernel: set[Mac], history: list[tuple[dict[Mac, tuple[Health | None, bool]], float]], kind: ServiceConfig
) -> None:
    members, now = Members.found(kernel), 0.0
    for told, pause in history:
        now += pause
        before = members
        made = [Candidate(mac, health, silent) for mac, (health, silent) in told.items()]
        members = admit(members, made, kind, now)
        assert members.joined.keys() <= told.keys()  # nobody who is not ready or is drained
        for mac, (health, silent) in told.items():
            if not silent and (health is None or health.passing):
                assert mac in members.joined
            elif mac in members.joined:  # the doubtful may stay, they never join
                assert mac in before.joined or mac in before.left
        assert members.held <= members.joined.keys()
        assert kind.holds or not members.held
        failed = {mac for mac in before.joined if mac in told} - members.joined.keys()
        if len(failed) > 1 and kind.holds and not before.held:
            assert members.joined  # a service never loses all at once
        assert admit(members, made, kind, now).joined == members.joined  # the same again changes nothing
        assert members.up == bool(members.joined)


@given(st.integers(0, 65535), st.floats(0, 3600), st.floats(0, 3600))
def test_a_slow_start_climbs_from_one_to_the_whole_weight(full: int, seconds: float, age: float) -> None:
    now = weight(full, 100.0, seconds, 100.0 + age)
    assert min(full, 1) <= now <= full
    assert weight(full, 100.0, seconds, 100.0 + age + 1) >= now
    assert weight(full, 100.0, seconds, 100.0 + seconds + 1) == full
    assert weight(full, LONG_AGO, seconds, 0.0) == full


def test_a_slow_start_climbs_in_ten_steps() -> None:
    ages = (-1.0, 0.0, 0.9, 1.0, 5.0, 5.9, 9.99, 10.0)
    assert [weight(100, 0.0, 10.0, age) for age in ages] == [1, 1, 1, 10, 50, 50, 90, 100]
    assert weight(100, 0.0, 0.0, 0.0) == 100
