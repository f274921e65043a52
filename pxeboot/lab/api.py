"""The API of the lab's server, as the lab itself asks it."""

from pathlib import Path
from typing import Any

import aiohttp

from pxeboot.errors import PxebootError
from pxeboot.web.views import NodeList, NodeView

ANSWER_SECONDS = 10.0


class Api:
    """Asks over the Unix socket; `log` is the server's, for who wants to know why it does not answer."""

    def __init__(self, socket: Path, log: Path) -> None:
        self._socket = socket
        self._log = log

    async def request(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """One request. Raises PxebootError."""
        connector = aiohttp.UnixConnector(str(self._socket))
        limit = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
        try:
            async with (
                aiohttp.ClientSession(connector=connector, timeout=limit) as session,
                session.request(method, f"http://lab{path}", json=body, raise_for_status=True) as response,
            ):
                answer: dict[str, Any] = await response.json()
                return answer
        except (OSError, aiohttp.ClientError, TimeoutError) as error:
            raise PxebootError(
                f"the lab's server did not answer {method} {path}: {error}", f"see {self._log}"
            ) from error

    async def nodes(self) -> list[NodeView] | None:
        """What the server says of its nodes; None when it does not answer (it may be starting)."""
        try:
            answer = await self.request("GET", "/api/v1/nodes")
        except PxebootError:
            return None
        return NodeList.model_validate(answer).nodes
