"""The bus and the tasks: nobody is blocked, nothing is lost in silence."""

import asyncio
import logging

import pytest

from pxeboot import tasks
from pxeboot.events import BACKLOG, Bus
from pxeboot.tasks import Tasks


async def test_every_subscriber_is_told() -> None:
    bus = Bus()
    async with bus.subscribe() as one, bus.subscribe() as other:
        bus.publish("boot", mac="a")
        for subscription in (one, other):
            event = await subscription.next(1.0)
            assert event is not None
            assert (event.kind, event.about) == ("boot", {"mac": "a"})


async def test_a_slow_subscriber_loses_its_oldest_events_only() -> None:
    bus = Bus()
    async with bus.subscribe() as subscription:
        for number in range(BACKLOG + 5):
            bus.publish("boot", number=number)
        event = await subscription.next(1.0)
        assert event is not None
        assert event.about == {"number": 5}


async def test_waiting_ends_without_an_event() -> None:
    async with Bus().subscribe() as subscription:
        assert await subscription.next(0.01) is None


async def test_a_loop_that_fails_is_logged_and_started_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "RESTART_SECONDS", 0.0)
    runs = 0
    again = asyncio.Event()

    async def loop() -> None:
        nonlocal runs
        runs += 1
        if runs == 1:
            raise ValueError("broken")
        again.set()
        await asyncio.sleep(60)

    group = Tasks()
    group.keep(loop, "the loop")
    with caplog.at_level(logging.ERROR):
        await asyncio.wait_for(again.wait(), 5)
    assert "the loop failed" in caplog.text
    await group.close()
    assert len(group) == 0


async def test_closing_ends_what_runs() -> None:
    group = Tasks()
    task = group.spawn(asyncio.sleep(60), "sleeper")
    await asyncio.sleep(0)
    await group.close()
    assert task.cancelled()
