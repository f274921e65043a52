"""Supervised tasks: a background loop that fails is logged with its traceback and started again."""

import asyncio
import logging
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from functools import partial
from typing import Any

log = logging.getLogger(__name__)

RESTART_SECONDS = 1.0


class Tasks:
    """Every task of a component, ended together.

    `spawn` runs something once; `keep` runs a loop and starts it again after a failure, because one bug
    in a background loop must not stop the other services. Nothing else in the project calls
    `asyncio.create_task`.
    """

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run `work` to its end; an exception is logged, never lost."""
        task = asyncio.create_task(self._guard(work, name), name=name)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    def start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run `work` at once to its first wait, and only if there is one, the rest of it as a task.

        For many small jobs that seldom wait. Before its first wait the work is in no task of its own, so it
        must not use what needs one (`asyncio.timeout`, `asyncio.current_task`).
        """
        try:
            awaited = work.send(None)
        except StopIteration:
            return
        except Exception:
            log.exception("%s failed", name)
        else:
            self.spawn(_rest(work, awaited), name)

    def keep(self, loop: Callable[[], Awaitable[None]], name: str) -> asyncio.Task[None]:
        """Run `loop` until `close`, again after RESTART_SECONDS whenever it raises."""
        return self.spawn(self._again(loop, name), name)

    async def close(self) -> None:
        """Cancel what still runs and wait for it."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def __len__(self) -> int:
        return len(self._running)

    @staticmethod
    async def _guard(work: Coroutine[Any, Any, None], name: str) -> None:
        try:
            await work
        except Exception:
            log.exception("%s failed", name)

    @staticmethod
    async def _again(loop: Callable[[], Awaitable[None]], name: str) -> None:
        while True:
            try:
                await loop()
            except Exception:
                log.exception("%s failed; again in %g s", name, RESTART_SECONDS)
            await asyncio.sleep(RESTART_SECONDS)


@types.coroutine
def _rest(work: Coroutine[Any, Any, None], awaited: Any) -> Generator[Any, Any, None]:
    """A coroutine that has begun and waits for `awaited`: hand that on to the task, and its answer back."""
    while True:
        try:
            answer = yield awaited
        except BaseException as error:
            resume = partial(work.throw, error)
        else:
            resume = partial(work.send, answer)
        try:
            awaited = resume()
        except StopIteration:
            return
