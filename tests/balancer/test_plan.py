"""The diff between what the kernel has and what it should have."""

from dataclasses import replace
from ipaddress import IPv4Address

from hypothesis import given
from hypothesis import strategies as st

from pxeboot.balancer.plan import Change, Verb, plan
from pxeboot.balancer.table import Entry, Real, ServiceKey, Table, Virtual


def key(port: int) -> ServiceKey:
    return ServiceKey(4, "tcp", IPv4Address("10.0.0.1"), port)


def entry(port: int, *reals: Real, scheduler: str = "wlc") -> Entry:
    return Entry(Virtual(key(port), scheduler), {real.id: real for real in reals})


def table(*entries: Entry) -> Table:
    return {item.virtual.key: item for item in entries}


def real(last: int, weight: int = 100) -> Real:
    return Real(IPv4Address(f"10.77.0.{last}"), 80, "nat", weight)


def told(changes: list[Change]) -> list[str]:
    return [str(change) for change in changes]


def applied(changes: list[Change], actual: Table) -> Table:
    """The table after the changes, as the kernel would have it; it refuses what contradicts it."""
    after = dict(actual)
    for change in changes:
        name = change.virtual.key
        if change.real is None:
            assert (name in after) == (change.verb is not Verb.ADD)
            if change.verb is Verb.DELETE:
                del after[name]
            else:
                before = after.get(name, Entry(change.virtual))
                after[name] = replace(before, virtual=change.virtual)
            continue
        reals = dict(after[name].reals)
        assert (change.real.id in reals) == (change.verb is not Verb.ADD)
        if change.verb is Verb.DELETE:
            del reals[change.real.id]
        else:
            reals[change.real.id] = change.real
        after[name] = replace(after[name], reals=reals)
    return after


reals = st.builds(real, st.integers(1, 6), st.integers(0, 3))
entries = st.builds(
    lambda port, servers, scheduler: entry(port, *servers, scheduler=scheduler),
    st.integers(1, 4),
    st.lists(reals, max_size=5),
    st.sampled_from(["rr", "wlc"]),
)
tables = st.lists(entries, max_size=4).map(lambda items: table(*items))


@given(wanted=tables, actual=tables, ours=st.sets(st.integers(1, 4).map(key)))
def test_any_table_becomes_the_wanted_one_and_then_nothing_is_left_to_do(
    wanted: Table, actual: Table, ours: set[ServiceKey]
) -> None:
    after = applied(plan(wanted, actual, ours), actual)
    assert plan(wanted, after, ours) == []
    for name, item in wanted.items():
        assert after[name] == item


@given(wanted=tables, actual=tables, ours=st.sets(st.integers(1, 4).map(key)))
def test_services_of_others_are_not_touched(wanted: Table, actual: Table, ours: set[ServiceKey]) -> None:
    after = applied(plan(wanted, actual, ours), actual)
    for name in actual.keys() - wanted.keys() - ours:
        assert after[name] == actual[name]


def test_a_newcomer_comes_before_a_leaver_goes() -> None:
    changes = plan(table(entry(80, real(2), real(3, 0))), table(entry(80, real(1), real(3))))
    assert told(changes) == [
        "add 10.77.0.2:80 weight 100 in tcp 10.0.0.1 80",
        "set 10.77.0.3:80 weight 0, was 100 in tcp 10.0.0.1 80",
        "delete 10.77.0.1:80 in tcp 10.0.0.1 80",
    ]


def test_another_scheduler_is_set_in_place() -> None:
    changes = plan(table(entry(80, real(1), scheduler="mh")), table(entry(80, real(1))))
    assert told(changes) == ["set service tcp 10.0.0.1 80 (mh)"]


def test_a_service_we_made_goes_when_it_is_no_longer_wanted() -> None:
    assert told(plan({}, table(entry(80, real(1)), entry(81)), {key(80)})) == [
        "delete service tcp 10.0.0.1 80 (wlc)"
    ]


def test_a_key_is_read_as_it_was_written() -> None:
    for name in (key(80), ServiceKey(6, mark=7)):
        assert ServiceKey.parse(str(name)) == name
