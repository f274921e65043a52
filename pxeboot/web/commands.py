"""Commands on their way to nodes: an operator says something, the node's agent fetches it."""

import asyncio

from pxeboot.errors import PxebootError
from pxeboot.mac import Mac

POLL_SECONDS = 60.0
"""How long an agent's question stays open."""
DELIVERY_SECONDS = 15.0
"""How long an operator waits for an agent to take a command: agents that lost us ask again within that."""


class Commands:
    """Hands each command to the agent that waits for it, and says whether it was taken.

    Nothing is queued: a command that no agent took has not been given.
    """

    def __init__(self) -> None:
        self._waiting: dict[Mac, asyncio.Future[str | None]] = {}

    async def give(self, mac: Mac, command: str) -> None:
        """Return when the node's agent has the command. Raises PxebootError when it does not come for it."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + DELIVERY_SECONDS
        while loop.time() < deadline:
            waiting = self._waiting.get(mac)
            if waiting is not None and not waiting.done():
                waiting.set_result(command)
                return
            await asyncio.sleep(0.1)
        raise PxebootError(
            f"{mac} did not take the command {command!r} within {DELIVERY_SECONDS:.0f} s",
            "its agent is not running or cannot reach this server; see `pxeboot node show`",
        )

    async def take(self, mac: Mac) -> str | None:
        """Wait for a command for this node, POLL_SECONDS at most. A newer question replaces an older one."""
        before = self._waiting.get(mac)
        if before is not None and not before.done():
            before.set_result(None)
        waiting: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._waiting[mac] = waiting
        try:
            async with asyncio.timeout(POLL_SECONDS):
                return await waiting
        except TimeoutError:
            return None
        finally:
            if self._waiting.get(mac) is waiting:
                del self._waiting[mac]
