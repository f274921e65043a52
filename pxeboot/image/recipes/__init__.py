"""Recipes that come with the package, each in a folder of its own, and how one is found by name or path."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pxeboot.errors import PxebootError
from pxeboot.image.recipe import Recipe, User, extended, parse

SHIPPED = Path(__file__).parent
FILE_NAME = "recipe.toml"
_MAX_DEPTH = 8
"""How many recipes may stand on one another."""


@dataclass(frozen=True)
class LoadedRecipe:
    """A recipe with what it extends, and the local files it names, all of which are there."""

    recipe: Recipe
    sources: Mapping[str, Path]
    """The local file for each path of `[files]`."""
    base: Path | None = None
    """The folder, tar or OCI layout to begin with, instead of a suite's packages."""
    path: Path = field(default=Path(), compare=False)


def load(argument: str) -> LoadedRecipe:
    """Read a recipe: a file, a folder with `recipe.toml` in it, or the name of a shipped one.

    What it extends is read too; a path there is relative to the recipe. Raises PxebootError, also when a
    local file it names is missing.
    """
    return _load(_find(argument), ())


def _load(path: Path, above: tuple[Path, ...]) -> LoadedRecipe:
    if path.resolve() in above or len(above) >= _MAX_DEPTH:
        raise PxebootError(
            f"{path}: extends: these recipes extend one another in a circle", "break the circle"
        )
    own = _read(path)
    if own.recipe.extends is None:
        return own
    name = own.recipe.extends
    place = name if "/" not in name or name.startswith("/") else str(path.parent / name)
    below = _load(_find(place), (*above, path.resolve()))
    whole = extended(below.recipe, own.recipe)
    return LoadedRecipe(whole, {**below.sources, **own.sources}, own.base or below.base, path)


def _read(path: Path) -> LoadedRecipe:
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
    base = (path.parent / recipe.base).resolve() if recipe.base is not None else None
    if base is not None and not base.exists():
        raise PxebootError(f"{path}: base: there is no {base}", "paths are relative to the recipe")
    users = {name: _with_keys(user, name, path) for name, user in recipe.users.items()}
    return LoadedRecipe(recipe.model_copy(update={"users": users}), sources, base, path)


def _with_keys(user: User, name: str, path: Path) -> User:
    """Names of local files among the keys are replaced by the keys in them."""
    keys: list[str] = []
    for key in user.keys:
        if " " in key:
            keys.append(key)
            continue
        try:
            lines = (path.parent / key).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise PxebootError(
                f"{path}: users.{name}.keys: {key}: {error}", "write a public key, or the name of its file"
            ) from None
        keys += [line for line in lines if line.strip() and not line.startswith("#")]
    return user.model_copy(update={"keys": tuple(keys)})


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
