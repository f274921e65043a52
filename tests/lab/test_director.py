from pathlib import Path

import pytest

from pxeboot.errors import PxebootError
from pxeboot.lab import director, network, uml
from pxeboot.lab.director import Forward, Seat


def seat(forward: Forward | None) -> Seat:
    return Seat(Path("/lab"), Path("/lab/server"), "ns", forward)


@pytest.fixture(params=[True, False], ids=["a kernel with IPVS", "one without"])
def ipvs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    has = bool(request.param)
    monkeypatch.setattr(director, "_kernel_has_ipvs", lambda: has)
    return has


def test_without_a_service_the_server_is_in_the_namespace_whatever_the_kernel_has(ipvs: bool) -> None:
    made = seat(None)
    assert not made.in_guest
    assert (made.interface, made.taps, made.addresses) == (network.BRIDGE, [], (network.ADDRESS,))
    assert made.state_dir == Path("/lab/server")


def test_a_service_has_its_director_where_there_is_ipvs(ipvs: bool) -> None:
    made = seat("nat")
    assert made.in_guest is not ipvs
    assert made.socket == Path("/lab/server/pxeboot.sock")
    if ipvs:
        assert made.addresses == (network.ADDRESS, network.OUTSIDE)
        assert made.log == Path("/lab/server.log")
    else:
        assert (made.interface, made.taps, made.addresses) == ("vec0", [director.TAP], ())
        assert made.log == Path("/lab/director/output.log")


def test_what_is_missing_for_a_director_is_named_with_the_way_around(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(director, "_kernel_has_ipvs", lambda: False)
    monkeypatch.setattr(uml, "KERNEL", "no-such-kernel")
    with pytest.raises(
        PxebootError, match="this kernel has no IPVS, and no-such-kernel is missing"
    ) as caught:
        seat("dr").check()
    assert "--service none" in caught.value.hint
    seat(None).check()


def test_the_client_is_where_answers_find_it() -> None:
    assert director.client_for("nat") == network.FAR_CLIENT
    assert director.client_for("dr") == director.client_for("tun") == network.NEAR_CLIENT


async def test_the_kernel_can_be_asked_while_an_event_loop_runs() -> None:
    seat("nat")
