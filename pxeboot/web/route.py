"""One operation of the operators' API, as a row that both the router and the OpenAPI document are made of."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from aiohttp import web
from pydantic import BaseModel

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Route:
    """What it takes, what it gives, and who does it."""

    method: Literal["GET", "PATCH", "DELETE", "POST"]
    path: str
    summary: str
    takes: type[BaseModel] | None
    gives: type[BaseModel] | None
    handler: Handler


def as_json(model: BaseModel, status: int = 200) -> web.Response:
    """A model as the body of an answer."""
    return web.Response(text=model.model_dump_json(), content_type="application/json", status=status)
