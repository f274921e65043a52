"""Recipes that come with the package, each in a folder of its own, and how one is found by name or path."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pxeboot.errors import PxebootError
from pxeboot.image.recipe import Recipe, parse

SHIPPED = Path(__file__).parent
FILE_NAME = "recipe.toml"


@dataclass(frozen=True)
class LoadedRecipe:
    """A recipe and the local files it names, all of which are there."""

    recipe: Recipe
    sources: Mapping[str, Path]
    """The local file for each path of `[files]`."""


def load(argument: str) -> LoadedRecipe:
    """Read a recipe: a file, a folder with `recipe.toml` in it, or the name of a shipped one.

    Raises PxebootError, also when a local file it names is missing.
    """
    path = _find(argument)
    try:
        recipe = parse(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise PxebootError(
            f"{path}: cannot be read: {error}", "it must be a readable file in UTF-8"
        ) from None
    sources = {inside: (path.parent / file.source).resolve() for inside, file in recipe.files.items()}
    for inside, source in sources.items():
        if not source.is_file():
            raise PxebootError(
                f"{path}: files.{inside}: there is no file {source}", "paths are relative to the recipe"
            )
    return LoadedRecipe(recipe, sources)


def _find(argument: str) -> Path:
    """A name without a slash is a shipped recipe first: a folder that happens to be here must not hide it."""
    given = Path(argument)
    candidates = [given / FILE_NAME, given] if "/" in argument or given.suffix == ".toml" else []
    candidates += [] if "/" in argument else [SHIPPED / argument / FILE_NAME, given / FILE_NAME]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    shipped = ", ".join(sorted(path.parent.name for path in SHIPPED.glob(f"*/{FILE_NAME}")))
    raise PxebootError(
        f"there is no recipe {argument!r}",
        f"name a file, a folder with {FILE_NAME} in it, or one of: {shipped}",
    )
