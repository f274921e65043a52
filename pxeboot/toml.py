"""A TOML text read as a model, and every fault told as an operator would: file, key, value, remedy."""

import tomllib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pxeboot.errors import PxebootError

Model = TypeVar("Model", bound=BaseModel)
Place = tuple[int | str, ...]


def read(text: str, name: str, model: type[Model], remedy: Callable[[ErrorDetails], str]) -> Model:
    """Validate `text` as `model`; `name` is its file's, `remedy` says what to do about a pydantic error.

    Raises PxebootError: the first fault, and how many more there are.
    """
    try:
        return model.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise PxebootError(
            f"{name}: {error}", "mend the TOML at that place; strings stand in quotes"
        ) from error
    except ValidationError as error:
        first, *rest = error.errors()
        hint = known_keys(model, first["loc"]) if first["type"] == "extra_forbidden" else remedy(first)
        more = f"; {len(rest)} more error{'s' * (len(rest) > 1)} after this one" if rest else ""
        raise PxebootError(f"{name}: {sentence(first)}", hint + more) from None


def told(error: ErrorDetails) -> str:
    """What one of our own validators said, "" where the fault is pydantic's to name."""
    return str(error["ctx"]["error"]) if error["type"] == "value_error" and "ctx" in error else ""


def sentence(error: ErrorDetails) -> str:
    """Where it is and what is wrong: `address: '10.0.0': not an IPv4 address`."""
    return _key(error["loc"]) + _what(error)


def known_keys(model: type[BaseModel], place: Place) -> str:
    """A sentence with the keys that are allowed beside an unknown one."""
    for part in place[:-1]:
        if isinstance(part, str) and part in model.model_fields:
            model = next(_models(model.model_fields[part].annotation), model)
    return f"known keys here are: {', '.join(sorted(model.model_fields))}"


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that a field's type holds: itself, or what its tuple, dictionary or alternatives are of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _key(place: Place) -> str:
    """`network.1.pool: ` as an operator would point at it, counting tables from 1; `` at the top."""
    named = (part for part in place if isinstance(part, int) or "[" not in part)  # not pydantic's own steps
    parts = [f"{part + 1}" if isinstance(part, int) else part for part in named]
    return ".".join(parts) + ": " if parts else ""


def _what(error: ErrorDetails) -> str:
    match error["type"]:
        case "extra_forbidden":
            return "unknown key"
        case "missing":
            return "is missing"
        case "value_error":
            return told(error) or error["msg"]
        case _:
            return f"{error['input']!r}: {error['msg'][0].lower()}{error['msg'][1:]}"
