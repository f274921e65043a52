"""The command line's side of the operators' API: over the Unix socket of a running server."""

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

from pxeboot.app import SOCKET_NAME
from pxeboot.errors import PxebootError

T = TypeVar("T")

ANSWER_SECONDS = 30.0


class Refused(PxebootError):
    """The server will not; `told` is its whole answer."""

    def __init__(self, told: dict[str, Any]) -> None:
        super().__init__(told["error"], told.get("hint", ""))
        self.told = told


class Client:
    """A running server, asked through its Unix socket. Every method raises PxebootError."""

    def __init__(self, session: aiohttp.ClientSession, path: Path) -> None:
        self._session = session
        self._path = path

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        """One request below /api/v1; the JSON of the answer, None where it has none."""
        try:
            async with self._session.request(method, f"http://pxeboot/api/v1{path}", json=body) as answer:
                text = await answer.text()
        except (OSError, aiohttp.ClientError, TimeoutError) as error:
            raise self._unreachable(error) from error
        if answer.status >= 400:
            raise _problem(answer.status, text)
        return json.loads(text) if text else None

    async def events(self) -> AsyncIterator[tuple[str, Any]]:
        """Changes as they come: kind and JSON value; a comment line of the stream comes as ("", None)."""
        unlimited = aiohttp.ClientTimeout(total=None, sock_read=60)
        kind = ""
        try:
            async with self._session.get("http://pxeboot/api/v1/events", timeout=unlimited) as answer:
                async for raw in answer.content:
                    name, _, value = raw.decode().strip().partition(": ")
                    if name == "event":
                        kind = value
                    elif name == "data":
                        yield kind, json.loads(value)
                    elif name == ":":
                        yield "", None
        except (OSError, aiohttp.ClientError, TimeoutError) as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> PxebootError:
        return PxebootError(
            f"no pxeboot server answers on {self._path} ({type(error).__name__})",
            "start one with `pxeboot serve`, or name its configuration with -c",
        )


def _problem(status: int, text: str) -> PxebootError:
    try:
        return Refused(json.loads(text))
    except (ValueError, KeyError, TypeError):
        return PxebootError(f"the server answered {status}: {text.strip()}", "see the server's log")


@asynccontextmanager
async def connect(state_dir: Path) -> AsyncIterator[Client]:
    """A client for the server of this state directory."""
    path = state_dir / SOCKET_NAME
    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path)), timeout=timeout) as session:
        yield Client(session, path)


def ask(state_dir: Path, method: str, path: str, body: Any = None) -> Any:
    """One request to the server of this state directory. Raises PxebootError."""

    async def once() -> Any:
        async with connect(state_dir) as client:
            return await client.ask(method, path, body)

    return run(once())


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end."""
    return asyncio.run(work)
