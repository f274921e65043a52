"""Looks at every target again and again, and wakes the balancer's loop when a verdict changes."""

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from functools import partial

from pxeboot.balancer.check import CheckConfig
from pxeboot.balancer.health import is_trusted, judge
from pxeboot.balancer.probes import look
from pxeboot.balancer.target import Health, Target
from pxeboot.tasks import Tasks

log = logging.getLogger(__name__)

LOOKS_AT_ONCE = 1024
"""A thousand nodes that are off, each waited for, must not delay one another. Two files open for each."""
SCRIPTS_AT_ONCE = 32
"""Each is a process or several."""
SPREAD_SECONDS = 0.002
"""New targets are first looked at within so much time for each of them, so that no burst goes out."""
UNDECIDED_PAUSE_SECONDS = 0.2
"""After a good look at a target without a verdict: who is ready should not wait for the second one."""

COMPLAINT_SECONDS = 60.0


class Checker:
    """Keeps the health of the targets it is told to watch.

    A node that stops answering right after a good look fails at most `interval * fall + timeout` later,
    because the jitter only ever shortens an interval.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        """`changed` is called when some target's `passing` changed; it should only wake a loop."""
        self._changed = changed
        self._tasks = Tasks()
        self._looking: dict[Target, asyncio.Task[None]] = {}
        self._checks: dict[Target, CheckConfig] = {}
        self._healths: dict[Target, Health] = {}
        self._slots = asyncio.Semaphore(LOOKS_AT_ONCE)
        self._script_slots = asyncio.Semaphore(SCRIPTS_AT_ONCE)
        self._quiet_until = 0.0

    def watch(self, targets: Mapping[Target, CheckConfig]) -> None:
        """Watch these and no others. A target whose check has changed keeps its health."""
        for target in self._checks.keys() - targets.keys():
            self._looking.pop(target).cancel()
            del self._checks[target]
            self._healths.pop(target, None)
        news = [target for target, check in targets.items() if self._checks.get(target) != check]
        for target in news:
            if target in self._looking:
                self._looking[target].cancel()
            self._checks[target] = targets[target]
            delay = random.uniform(0, min(targets[target].interval_seconds, SPREAD_SECONDS * len(news)))  # noqa: S311
            self._looking[target] = self._tasks.keep(
                partial(self._follow, target, delay), f"check of {target.node or target.mac}"
            )

    def health(self, target: Target) -> Health:
        """What is known of a target; nothing of one that is not watched."""
        return self._healths.get(target, Health())

    async def close(self) -> None:
        """Look no more."""
        await self._tasks.close()

    async def _follow(self, target: Target, delay: float) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(delay)
        while True:
            began, check = loop.time(), self._checks[target]
            async with self._script_slots if check.kind == "script" else self._slots:
                outcome = await look(check, target)
            health = self.health(target)
            if is_trusted(outcome, check):
                health = judge(health, outcome, check)
                self._note(target, health)
            else:
                self._complain(outcome.seconds - check.timeout_seconds)
            await asyncio.sleep(began + pause(health, check, random.random()) - loop.time())  # noqa: S311

    def _complain(self, late_seconds: float) -> None:
        """Once a minute: verdicts stay as they are while looks do not count."""
        now = asyncio.get_running_loop().time()
        if now >= self._quiet_until:
            self._quiet_until = now + COMPLAINT_SECONDS
            log.warning("health checks do not count: this process is %.1f s behind, too busy", late_seconds)

    def _note(self, target: Target, health: Health) -> None:
        before, self._healths[target] = self.health(target), health
        if health.passing == before.passing or health.last is None:
            return
        level = logging.INFO if health.passing else logging.WARNING
        verdict = "passes" if health.passing else "fails"
        log.log(level, "%s: %s its check for %s: %s", target.mac, verdict, target.service, health.last.text)
        self._changed()


def pause(health: Health, check: CheckConfig, chance: float) -> float:
    """Seconds from the beginning of one look to that of the next; `chance` is a random number below 1."""
    interval = check.interval_seconds
    if health.passing is None and health.last is not None and health.last.good:
        interval = min(interval, UNDECIDED_PAUSE_SECONDS)
    return interval * (1 - check.jitter * chance)
