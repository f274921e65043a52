"""Supervised tasks: a background loop that fails is logged with its traceback and started again."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
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
        self._jobs: set[Coroutine[Any, Any, None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run `work` to its end; an exception is logged, never lost."""
        task = asyncio.create_task(self._guard(work, name), name=name)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    def start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run a small job at once to its first wait, and on from there by callbacks, without its own task.

        For thousands of jobs a second, where a task each would cost as much as the jobs. Such a job must not
        use what needs a task (`asyncio.timeout`, `asyncio.current_task`), and must not await in `finally`.
        """
        self._jobs.add(work)
        self._go_on(work, name)

    def _go_on(self, work: Coroutine[Any, Any, None], name: str, awaited: Any = None) -> None:
        """Run a job to its next wait. `awaited` is the future that has ended, whose result it asks itself."""
        if work not in self._jobs:
            return  # closed meanwhile
        try:
            awaited = work.send(None)
        except (StopIteration, asyncio.CancelledError):
            self._jobs.discard(work)
        except Exception:
            self._jobs.discard(work)
            log.exception("%s failed", name)
        else:
            if awaited is None:  # asyncio.sleep(0)
                asyncio.get_running_loop().call_soon(self._go_on, work, name)
            else:
                awaited._asyncio_future_blocking = False  # as a task does: the wait has been taken note of
                awaited.add_done_callback(partial(self._go_on, work, name))

    def keep(self, loop: Callable[[], Awaitable[None]], name: str) -> asyncio.Task[None]:
        """Run `loop` until `close`, again after RESTART_SECONDS whenever it raises."""
        return self.spawn(self._again(loop, name), name)

    async def close(self) -> None:
        """Cancel what still runs and wait for it."""
        while self._jobs:
            self._jobs.pop().close()
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def __len__(self) -> int:
        return len(self._running) + len(self._jobs)

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
