import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from ipaddress import IPv4Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxeboot.balancer import checker, probes
from pxeboot.balancer.check import CheckConfig
from pxeboot.balancer.checker import Checker, pause
from pxeboot.balancer.target import Health, Outcome, Target
from pxeboot.mac import Mac

HERE = IPv4Address("127.0.0.1")


def quick(**keys: Any) -> CheckConfig:
    return CheckConfig.model_validate(
        {"kind": "tcp", "interval_seconds": 0.1, "timeout_seconds": 0.2, "rise": 2, "fall": 2} | keys
    )


def target(port: int, number: int = 1) -> Target:
    return Target("www", Mac.from_bytes(b"\x52\x54\x00\x00" + number.to_bytes(2, "big")), HERE, port)


class Listener:
    """A TCP port that can be closed and opened again; counts who came and how many at once."""

    def __init__(self) -> None:
        self.port = 0
        self.came = 0
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, str(HERE), self.port, backlog=2000)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.came += 1
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    made = Listener()
    await made.open()
    yield made
    await made.close()


@contextlib.asynccontextmanager
async def checking(changed: Callable[[], None] = lambda: None) -> AsyncIterator[Checker]:
    made = Checker(changed)
    try:
        yield made
    finally:
        await made.close()


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not happened():
            await asyncio.sleep(0.01)


async def test_a_node_comes_goes_and_comes_back_and_each_time_the_loop_is_woken(
    listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pxeboot.balancer.checker")
    woken: list[bool | None] = []
    one = target(listener.port)
    async with checking(lambda: woken.append(made.health(one).passing)) as made:
        assert made.health(one) == Health()
        made.watch({one: quick()})
        await until(lambda: made.health(one).passing is True)
        await listener.close()
        await until(lambda: made.health(one).passing is False)
        await listener.open()
        await until(lambda: made.health(one).passing is True)
    assert woken == [True, False, True]
    assert [turn.text for turn in made.health(one).turns] == ["connected", "connection refused", "connected"]
    assert caplog.messages[1] == f"{one.mac}: fails its check for www: connection refused"


async def test_who_is_watched_no_longer_is_forgotten(listener: Listener) -> None:
    one, other = target(listener.port, 1), target(listener.port, 2)
    async with checking() as made:
        made.watch({one: quick(), other: quick()})
        await until(lambda: bool(made.health(one).passing and made.health(other).passing))
        made.watch({other: quick()})
        assert made.health(one) == Health()
        came = listener.came
        await until(lambda: listener.came > came + 1)
        assert made.health(one) == Health()
        made.watch({})
        await asyncio.sleep(0.05)
        came = listener.came
        await asyncio.sleep(0.3)
        assert listener.came == came


async def test_a_changed_check_keeps_the_verdict_and_is_in_force_at_once(listener: Listener) -> None:
    one = target(listener.port)
    async with checking() as made:
        made.watch({one: quick(interval_seconds=3600.0)})
        await until(lambda: made.health(one).passing is True)
        before = made.health(one)
        made.watch({one: quick(kind="script", command=["false"])})
        assert made.health(one) == before
        await until(lambda: made.health(one).passing is False)


async def test_the_same_targets_again_change_nothing(listener: Listener) -> None:
    one = target(listener.port)
    async with checking() as made:
        for _ in range(50):
            made.watch({one: quick(interval_seconds=3600.0, rise=3)})
            await asyncio.sleep(0.005)
        await until(lambda: made.health(one).passing is True)
    assert listener.came == 3


async def test_a_thousand_targets_are_judged(listener: Listener) -> None:
    many = [target(listener.port, number) for number in range(1000)]
    async with checking() as made:
        made.watch(dict.fromkeys(many, quick(interval_seconds=5.0, timeout_seconds=5.0)))
        await until(lambda: all(made.health(one).passing for one in many))


async def test_scripts_run_so_many_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checker, "SCRIPTS_AT_ONCE", 2)
    running, most, ended = 0, 0, 0

    async def look(check: CheckConfig, one: Target) -> Outcome:
        nonlocal running, most, ended
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02)
        running, ended = running - 1, ended + 1
        return Outcome(0.0, True, "fine", 0.02)

    monkeypatch.setattr(checker, "look", look)
    async with checking() as made:
        made.watch({target(1, number): quick(kind="script", command=["true"]) for number in range(9)})
        await until(lambda: ended > 20)
    assert most == 2


async def test_a_bug_in_a_check_does_not_end_it(
    listener: Listener, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pxeboot.tasks.RESTART_SECONDS", 0.01)
    faults = [ZeroDivisionError()]

    async def faulty(check: CheckConfig, one: Target) -> Outcome:
        if faults:
            raise faults.pop()
        return await probes.look(check, one)

    monkeypatch.setattr(checker, "look", faulty)
    one = target(listener.port)
    async with checking() as made:
        made.watch({one: quick()})
        await until(lambda: made.health(one).passing is True)
    assert "ZeroDivisionError" in caplog.text


async def test_looks_that_we_ended_late_fail_nobody_and_are_complained_of_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looks = 0

    async def look(check: CheckConfig, one: Target) -> Outcome:
        nonlocal looks
        looks += 1
        return Outcome(0.0, looks <= 2, "no answer", 0.0 if looks <= 2 else 5.0)

    monkeypatch.setattr(checker, "look", look)
    one = target(1)
    async with checking() as made:
        made.watch({one: quick()})
        await until(lambda: looks > 6)
        assert made.health(one).passing is True
        assert made.health(one).streak == 2
    assert caplog.text.count("this process is 4.8 s behind, too busy") == 1


@given(st.floats(0.1, 3600), st.floats(0, 0.5), st.floats(0, 1, exclude_max=True))
def test_jitter_only_shortens_the_interval(interval: float, jitter: float, chance: float) -> None:
    check = quick(interval_seconds=interval, jitter=jitter)
    assert interval / 2 <= pause(Health(passing=True), check, chance) <= interval


def test_a_good_look_at_an_undecided_target_is_followed_soon() -> None:
    check, good, bad = quick(interval_seconds=60.0), Outcome(0, True, "", 0), Outcome(0, False, "", 0)
    assert pause(Health(history=(good,)), check, 0.0) < 1
    assert pause(Health(history=(bad,)), check, 0.0) == 60
    assert pause(Health(history=(good,), passing=False), check, 0.0) == 60
