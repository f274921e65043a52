from hypothesis import given
from hypothesis import strategies as st

from pxeboot.image.retention import TagStep, earlier, removable, standing


def history(*steps: str) -> list[TagStep]:
    """Newest first, from letters in order of time; `<a` is a rollback to `a`."""
    made = [
        TagStep(digest=step[-1] * 64, since=float(time), back=step[0] == "<")
        for time, step in enumerate(steps)
    ]
    return made[::-1]


def letter(digest: str | None) -> str | None:
    return digest and digest[0]


def test_a_rollback_leads_to_the_image_before() -> None:
    assert letter(earlier(history("a", "b", "c"))) == "b"
    assert earlier(history("a")) is None
    assert earlier([]) is None


def test_a_second_rollback_goes_further_back_and_not_forth() -> None:
    assert letter(earlier(history("a", "b", "c", "<b"))) == "a"
    assert earlier(history("a", "b", "c", "<b", "<a")) is None
    assert letter(earlier(history("a", "b", "c", "<b", "d"))) == "b"


def test_an_image_tagged_twice_is_gone_back_to_where_it_stood_last() -> None:
    assert [letter(digest) for digest in standing(history("a", "b", "a", "c", "<a"))] == ["a", "b", "a"]


def test_what_a_node_runs_and_a_tags_last_ones_stay() -> None:
    histories = {"web": history("a", "b", "c", "d"), "db": history("e")}
    digests = [name * 64 for name in "abcdefg"]
    assert [letter(d) for d in removable(digests, histories, {"a" * 64}, keep=2)] == ["b", "f", "g"]
    assert [letter(d) for d in removable(digests, histories, (), keep=9)] == ["f", "g"]


def test_going_back_and_forth_does_not_push_others_out() -> None:
    histories = {"web": history("a", "b", "c", "<b", "c", "<b")}
    assert removable(["a" * 64], histories, (), keep=3) == []


@given(st.lists(st.sampled_from("abcd")), st.sets(st.sampled_from("abcd")), st.integers(1, 4))
def test_the_present_image_and_running_ones_never_go(steps: list[str], running: set[str], keep: int) -> None:
    doomed = removable([x * 64 for x in "abcd"], {"web": history(*steps)}, {x * 64 for x in running}, keep)
    assert not {digest[0] for digest in doomed} & (running | set(steps[-1:]))
