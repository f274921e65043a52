"""Jobs without tasks: run at once, on from each wait, in order, and ended with their owner."""

import asyncio
import logging

import pytest

from pxeboot.tasks import Tasks


async def test_a_job_without_a_wait_is_done_when_it_has_been_started() -> None:
    done: list[int] = []

    async def work() -> None:
        done.append(1)

    tasks = Tasks()
    tasks.start(work(), "work")
    assert (done, len(tasks)) == ([1], 0)


async def test_a_job_goes_on_after_each_wait_with_what_it_waited_for() -> None:
    told: list[object] = []
    first: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def work() -> None:
        told.append(await first)
        await asyncio.sleep(0)
        try:
            await asyncio.get_running_loop().run_in_executor(None, int, "x")
        except ValueError as error:
            told.append(type(error))

    tasks = Tasks()
    tasks.start(work(), "work")
    assert (told, len(tasks)) == ([], 1)
    first.set_result("word")
    while len(tasks):
        await asyncio.sleep(0.01)
    assert told == ["word", ValueError]


async def test_jobs_that_wait_for_the_same_go_on_in_the_order_of_their_start() -> None:
    order: list[int] = []
    gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def work(number: int) -> None:
        await gate
        order.append(number)

    tasks = Tasks()
    for number in range(20):
        tasks.start(work(number), "work")
    gate.set_result(None)
    await asyncio.sleep(0)
    assert order == list(range(20))


@pytest.mark.parametrize("waits", [False, True])
async def test_a_job_that_fails_is_told_and_forgotten(waits: bool, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        if waits:
            await asyncio.sleep(0)
        raise ZeroDivisionError

    tasks = Tasks()
    tasks.start(work(), "counting")
    await asyncio.sleep(0)
    assert len(tasks) == 0
    assert [(record.levelno, record.message) for record in caplog.records] == [
        (logging.ERROR, "counting failed")
    ]


async def test_a_job_ends_with_what_it_waited_for_or_with_its_owner() -> None:
    ended: list[str] = []

    async def work(gate: "asyncio.Future[None]", name: str) -> None:
        try:
            await gate
        finally:
            ended.append(name)

    tasks, loop = Tasks(), asyncio.get_running_loop()
    one, other = loop.create_future(), loop.create_future()
    tasks.start(work(one, "cancelled"), "work")
    tasks.start(work(other, "closed"), "work")
    one.cancel()
    await asyncio.sleep(0)
    assert (ended, len(tasks)) == (["cancelled"], 1)
    await tasks.close()
    assert (ended, len(tasks)) == (["cancelled", "closed"], 0)
    other.set_result(None)  # comes too late, and wakes nobody
    await asyncio.sleep(0)


async def test_a_loop_that_fails_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pxeboot.tasks.RESTART_SECONDS", 0.0)
    rounds: list[int] = []
    often = asyncio.Event()

    async def loop() -> None:
        rounds.append(1)
        if len(rounds) == 3:
            often.set()
        raise ZeroDivisionError

    tasks = Tasks()
    tasks.keep(loop, "loop")
    await often.wait()
    await tasks.close()
    assert len(rounds) == 3
